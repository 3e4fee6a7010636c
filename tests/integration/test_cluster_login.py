"""Logging in to a real server by a service file, and with a token in a password's place."""

from contextlib import closing
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from psycopg.conninfo import conninfo_to_dict

from local.postgres_server import PostgresServer
from shared.errors import ConninfoInvalid, PostgresAuthenticationFailed
from shared.repository.azure_credentials import (
    DATABASE_SCOPE,
    EntraLoginFailed,
    EntraUnavailable,
    database_token,
)
from shared.settings import ClusterSettings, Credential
from worker.commands.cluster_login import conninfo_of
from worker.postgres.connection import connect_sql

pytestmark = [pytest.mark.integration]


def service(path: Path, text: str) -> ClusterSettings:
    path.write_text(text, "utf-8")
    return ClusterSettings(name="demo", service="main", service_file=path)


def test_a_service_says_where_and_as_whom(source_cluster: PostgresServer, tmp_path: Path) -> None:
    known = conninfo_to_dict(source_cluster.dsn("postgres"))
    entries = "".join(f"{key} = {value}\n" for key, value in known.items())
    text = f"# ours\n[other]\nhost=nowhere\n\n[main]\n{entries}"
    cluster = service(tmp_path / "services.conf", text)

    with closing(connect_sql(conninfo_of(cluster, "template1"))) as connection:
        assert connection.info.dbname == "template1"


@pytest.mark.parametrize("text", ["[other]\nhost=a\n", "[main]\nhost\n", "[main]\n"])
def test_a_service_that_does_not_read_is_refused_without_quoting_it(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(ConninfoInvalid, match=r"services\.conf"):
        conninfo_of(service(tmp_path / "services.conf", text))


def test_a_missing_service_file_is_told(tmp_path: Path) -> None:
    cluster = service(tmp_path / "services.conf", "[main]\nhost=a\n")
    (tmp_path / "services.conf").unlink()
    with pytest.raises(ConninfoInvalid, match="cannot read"):
        conninfo_of(cluster)


def test_a_token_is_the_password_and_a_new_one_is_asked_for_each_connection(
    source_cluster: PostgresServer,
) -> None:
    with closing(source_cluster.connect()) as superuser:
        superuser.execute("CREATE ROLE entra_demo LOGIN PASSWORD 'token-2'")
        host = conninfo_to_dict(source_cluster.dsn("postgres"))
    # Over TCP, where the server wants a password.
    dsn = f"host=127.0.0.1 port={host['port']} user=entra_demo dbname=postgres"
    cluster = ClusterSettings(name="demo", dsn=dsn, entra=Credential(kind="azure-cli"))
    given = iter(["token-1", "token-2"])

    def tokens(login: Credential) -> str:
        assert login.kind == "azure-cli"
        return next(given)

    with pytest.raises(PostgresAuthenticationFailed) as refused:
        connect_sql(conninfo_of(cluster, tokens=tokens))
    assert "token" not in refused.value.fact
    with closing(connect_sql(conninfo_of(cluster, tokens=tokens))) as connection:
        assert connection.info.user == "entra_demo"


class Identity:
    """A credential that answers once."""

    def __init__(self, answer: AccessToken | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.asked += scopes
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_the_token_is_for_databases() -> None:
    identity = Identity(AccessToken("t", 2_000_000_000))
    assert database_token(identity) == "t"
    assert identity.asked == [DATABASE_SCOPE]


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (ClientAuthenticationError("no identity\nmore"), EntraLoginFailed),
        (ServiceRequestError("no route"), EntraUnavailable),
    ],
)
def test_who_gets_no_token_is_told_why(trouble: Exception, error: type[Exception]) -> None:
    with pytest.raises(error, match="no token for the database"):
        database_token(Identity(trouble))
