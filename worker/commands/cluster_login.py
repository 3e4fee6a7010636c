"""How pgkeep logs in to a cluster: a conninfo string or a service, a password file or a token."""

from collections.abc import Callable
from functools import cache

from shared.repository.azure_credentials import CredentialKind, database_token, token_credential
from shared.settings import ClusterSettings, Credential
from worker.postgres.connection import connect_sql, refined
from worker.postgres.service_file import service_conninfo
from worker.postgres.table_facts import Connect

# Asks for a token, which serves as the password.
Tokens = Callable[[Credential], str]


def entra_token(login: Credential) -> str:
    """Raises EntraLoginFailed, EntraUnavailable, SettingsInvalid."""
    return _tokens(login.kind, login.client_id)()


@cache  # a credential object keeps its token until that grows old
def _tokens(kind: str, client_id: str | None) -> Callable[[], str]:
    credential = token_credential(CredentialKind(kind), client_id=client_id)
    return lambda: database_token(credential)


def conninfo_of(
    cluster: ClusterSettings, database: str | None = None, *, tokens: Tokens = entra_token
) -> str:
    """A conninfo string that is good now: make a new one for each connection, for tokens expire.

    It may hold a password; raises ConninfoInvalid and what `tokens` raises.
    """
    passfile = None if cluster.password_file is None else str(cluster.password_file)
    password = None if cluster.entra is None else tokens(cluster.entra)
    return refined(_base(cluster), passfile=passfile, password=password, dbname=database)


def _base(cluster: ClusterSettings) -> str:
    if cluster.dsn is not None:
        return cluster.dsn.get_secret_value()
    if cluster.service_file is None or cluster.service is None:
        raise AssertionError("the settings see to it that a cluster has a dsn or a service")
    return service_conninfo(cluster.service_file, cluster.service)


def connect_to(cluster: ClusterSettings) -> Connect:
    """Opens an SQL connection to a database of the cluster."""
    return lambda database: connect_sql(conninfo_of(cluster, database))
