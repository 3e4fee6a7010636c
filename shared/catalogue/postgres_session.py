"""Transactions on the catalogue database: opened, retried, and their errors given our names."""

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.rows import DictRow, dict_row

from shared.errors import (
    CatalogueDenied,
    CatalogueUnavailable,
    CatalogueValueRefused,
    ConninfoInvalid,
    PgkeepError,
)

T = TypeVar("T")
Session = psycopg.Connection[DictRow]

# A conninfo string, or what makes one for each connection: tokens in a password's place expire.
Login = str | Callable[[], str]

_CONNECT_TIMEOUT_S = 5
# A function must answer within seconds, and its lock must not outlive it.
_OPTIONS = "-c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"
# Rows are locked in one order and read after, so a second attempt is rare, and a tenth a defect.
_ATTEMPTS = 10


def with_token(dsn: str, token: Callable[[], str]) -> Login:
    """Logs in with a token, asked for with each connection, in the place of a password."""
    return lambda: conninfo.make_conninfo(connection_string(dsn), password=token())


def transact(login: Login, work: Callable[[Session], T]) -> T:
    """Run `work` in one transaction on a connection of its own.

    `work` is run again when PostgreSQL ends it for a serialization failure or a deadlock, so it
    must have no effect but on the session. Raises the errors that shared.catalogue.ports lists, and
    what a login raises that asks for a token.
    """
    dsn = connection_string(login if isinstance(login, str) else login())
    try:
        with psycopg.connect(dsn, row_factory=dict_row) as session:
            # Whatever the database's default is: under this level, who waited for a lock sees
            # what the other did, and goes on instead of failing.
            session.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            return _retried(session, work)
    except psycopg.Error as error:
        raise renamed(error) from None


def connection_string(dsn: str) -> str:
    """`dsn` with our limits. Raises ConninfoInvalid."""
    try:
        given = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConninfoInvalid("catalogue.dsn is no connection string") from None
    limits: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "application_name": "pgkeep",
        **given,
        "options": _limited(given.get("options")),
    }
    return conninfo.make_conninfo(**limits)


def _limited(options: object) -> str:
    """Ours once, however often the string goes through here."""
    given = str(options or "")
    return given if _OPTIONS in given else f"{given} {_OPTIONS}".strip()


def _retried(session: Session, work: Callable[[Session], T]) -> T:
    for _ in range(_ATTEMPTS - 1):
        try:
            with session.transaction():
                return work(session)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            continue
    with session.transaction():
        return work(session)


def renamed(error: psycopg.Error) -> PgkeepError:
    """The catalogue's own error; server messages go in, connection strings do not."""
    said = error.diag.message_primary or str(error).strip().splitlines()[0]
    if isinstance(error, psycopg.DataError):
        return CatalogueValueRefused(f"the catalogue refuses a value: {said}")
    if _is_denial(error, said):
        return CatalogueDenied(f"the catalogue refuses us: {said}")
    return CatalogueUnavailable(f"the catalogue does not answer: {said}")


def _is_denial(error: psycopg.Error, said: str) -> bool:
    # A refused connection carries no SQLSTATE, only libpq's words.
    words = ("authentication failed", "no pg_hba.conf entry", "no password supplied")
    return isinstance(error, psycopg.errors.InsufficientPrivilege) or any(
        word in said for word in words
    )
