"""The catalogue with a token in a password's place, on a real server that asks for one."""

from contextlib import closing
from datetime import UTC, datetime

import pytest
from psycopg.conninfo import conninfo_to_dict

from local.postgres_server import PostgresServer
from shared import adapters
from shared.catalogue.migrate import migrate, release_migrations
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.postgres_session import with_token
from shared.errors import CatalogueDenied, SettingsInvalid
from shared.settings import Catalogue, Credential, DirectoryRepository, Settings

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def dsn(source_cluster: PostgresServer) -> str:
    """Over TCP, where the server wants a password; the role owns a database of its own."""
    with closing(source_cluster.connect()) as superuser:
        superuser.execute("CREATE ROLE catalogue_demo LOGIN PASSWORD 'token-2'")
        superuser.execute("CREATE DATABASE catalogue_demo OWNER catalogue_demo")
        host = conninfo_to_dict(source_cluster.dsn("postgres"))
    return f"host=127.0.0.1 port={host['port']} user=catalogue_demo dbname=catalogue_demo"


def test_each_transaction_logs_in_with_the_token_of_now(dsn: str) -> None:
    now_good = ["token-2"]
    login = with_token(dsn, lambda: now_good[0])
    assert len(migrate(login, NOW)) == len(release_migrations())
    catalogue = PostgresCatalogue(login)
    assert catalogue.findings() == []
    now_good[0] = "token-1"
    with pytest.raises(CatalogueDenied) as refused:
        catalogue.findings()
    assert "token-1" not in refused.value.fact
    now_good[0] = "token-2"
    catalogue.check()


def settings(catalogue: Catalogue | None) -> Settings:
    return Settings(
        repository=DirectoryRepository(type="directory", path="blobs"), catalogue=catalogue
    )


def test_the_settings_say_whether_there_is_a_password_or_a_token() -> None:
    assert adapters.catalogue_login(settings(Catalogue(dsn="host=db"))) == "host=db"
    identity = Credential(kind="managed-identity", client_id="33333333-3333-4333-8333-333333333333")
    assert callable(adapters.catalogue_login(settings(Catalogue(dsn="host=db", entra=identity))))
    with pytest.raises(SettingsInvalid, match="needs client_id"):
        adapters.catalogue_login(settings(Catalogue(dsn="host=db", entra=Credential())))
    with pytest.raises(SettingsInvalid, match="catalogue"):
        adapters.catalogue_login(settings(None))
