"""`pgkeep catalogue rebuild`: the catalogue's content again, from signed documents alone.

The function app is the catalogue's only writer; this verb runs under its identity, by hand, when
the catalogue was lost or is doubted. Nothing in the repository is changed.
"""

from shared import adapters
from shared.catalogue.migrate import migrate
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import Rebuilt, rebuild
from worker.commands.services import Services


def rebuild_catalogue(services: Services) -> Rebuilt:
    """Documents that are not believed are left out and named. Raises SettingsInvalid,
    CatalogueUnavailable, EntraLoginFailed.
    """
    login = adapters.catalogue_login(services.settings)
    now = services.clocks.now()
    migrate(login, now)
    return rebuild(PostgresCatalogue(login), services.store, services.pinned, now)
