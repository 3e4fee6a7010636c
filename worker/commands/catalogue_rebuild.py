"""`pgkeep catalogue rebuild`: the catalogue's content again, from signed documents alone.

The function app is the catalogue's only writer; this verb runs under its identity, by hand, when
the catalogue was lost or is doubted. Nothing in the repository is changed.
"""

from shared.catalogue.migrate import migrate
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import Rebuilt, rebuild
from shared.errors import SettingsInvalid
from worker.commands.services import Services


def rebuild_catalogue(services: Services) -> Rebuilt:
    """Documents that are not believed are left out and named. Raises CatalogueUnavailable."""
    section = services.settings.catalogue
    if section is None:
        raise SettingsInvalid("the settings have no section [catalogue]")
    dsn = section.dsn.get_secret_value()
    now = services.clocks.now()
    migrate(dsn, now)
    return rebuild(PostgresCatalogue(dsn), services.store, services.pinned, now)
