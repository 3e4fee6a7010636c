"""Opening connections to PostgreSQL, so that nothing but our connection string decides where to.

libpq fills every parameter that a connection string leaves out from some PG* variable: PGHOST may
change the target, PGSSLMODE=disable may strip TLS. So every parameter that has such a variable is
written out here: with libpq's compiled default, or empty, which counts as given. PGSERVICE alone
has no such guard; it is refused. (~/.pgpass stays in force: it can hold passwords, not targets.)
"""

import re
import select
from collections.abc import Mapping
from ipaddress import ip_address
from time import monotonic
from types import MappingProxyType
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from shared.errors import (
    ConninfoInvalid,
    FullPageWritesOff,
    PgkeepError,
    PostgresAuthenticationFailed,
    PostgresCommandFailed,
    PostgresConnectionsExhausted,
    PostgresDenied,
    PostgresEnvironmentRefused,
    PostgresGone,
    PostgresTlsFailed,
    PostgresUnreachable,
    PostgresVersionUnsupported,
    ReplicationDenied,
    StandbyIdle,
    StandbyPromoted,
)

ReplicationConnection = PGconn

SUPPORTED_MAJORS: Final = range(15, 19)  # 15 brought BASE_BACKUP's TARGET and archive messages
CONNECT_TIMEOUT: Final = 20  # seconds

# A peer that vanished without a word is noticed after 15 + 3 * 5 seconds of silence; data of ours
# that nobody acknowledges ends the connection after 30.
_LIVENESS: Final = {
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# Parameters without a compiled default for which libpq does not take the empty string as absent;
# the values are what it does then. SSPI, the one method forbidden, exists on Windows only.
_WHEN_ABSENT: Final = {
    "require_auth": "!sspi",
    "sslcertmode": "allow",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "client_encoding": "UTF8",
}
_NEVER_SENT: Final = frozenset({"service", "servicefile"})
_NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})
_REDACTED: Final = "**redacted**"
_SEVERITY: Final = re.compile(r"^(ERROR|FATAL|PANIC):\s+")


def connect(
    conninfo: str,
    *,
    replication: bool,
    connect_timeout: int = CONNECT_TIMEOUT,
    application_name: str = "pgkeep",
    environment: Mapping[str, str] = _NO_ENVIRONMENT,
) -> PGconn:
    """A blocking libpq connection, a walsender's if `replication`; the caller calls finish().

    Raises a leaf of Denied, Unavailable, InvalidInput or Refused; no message holds a password.
    """
    parameters = resolve(conninfo, replication=replication, environment=environment)
    parameters["application_name"] = application_name
    connection = pq.PGconn.connect_start(make_conninfo("", **parameters).encode())
    try:
        if not _establish(connection, monotonic() + connect_timeout):
            reason = connection.get_error_message() + "\nconnection timeout expired"
            raise _connection_error(reason, parameters)
        if connection.status != pq.ConnStatus.OK:
            raise _connection_error(connection.get_error_message(), parameters)
        require_supported_version(connection.server_version)
    except PgkeepError:
        connection.finish()
        raise
    return connection


def connect_sql(
    conninfo: str,
    *,
    connect_timeout: int = CONNECT_TIMEOUT,
    application_name: str = "pgkeep",
    environment: Mapping[str, str] = _NO_ENVIRONMENT,
) -> psycopg.Connection:
    """An autocommit connection for SQL; raises like `connect`."""
    parameters = resolve(conninfo, replication=False, environment=environment)
    parameters["connect_timeout"] = str(connect_timeout)
    parameters["application_name"] = application_name
    try:
        connection = psycopg.connect(make_conninfo("", **parameters), autocommit=True)
    except psycopg.Error as error:
        raise _connection_error(str(error), parameters) from None
    try:
        require_supported_version(connection.info.server_version)
    except PgkeepError:
        connection.close()
        raise
    return connection


def _establish(connection: PGconn, deadline: float) -> bool:
    """Whether the handshake ended, well or not, in time.

    PQconnectdb would do, but psycopg holds the GIL over it, and with it our heartbeat.
    """
    awaited = {pq.PollingStatus.READING: select.POLLIN, pq.PollingStatus.WRITING: select.POLLOUT}
    state = pq.PollingStatus.WRITING  # PQconnectStart: behave as if it had been returned
    while connection.status != pq.ConnStatus.BAD and (events := awaited.get(state)):
        poll = select.poll()
        poll.register(connection.socket, events)
        if not poll.poll(max(0.0, deadline - monotonic()) * 1000):
            return False
        state = pq.PollingStatus(connection.connect_poll())
    return True


def resolve(
    conninfo: str, *, replication: bool, environment: Mapping[str, str] = _NO_ENVIRONMENT
) -> dict[str, str]:
    """Every parameter that libpq knows, with the value it shall have.

    Raises ConninfoInvalid when host or user is missing: both would come from the environment.
    """
    if environment.get("PGSERVICE"):
        raise PostgresEnvironmentRefused("the variable PGSERVICE is set")
    given = _given(conninfo)
    if not (given.get("host") or given.get("hostaddr")) or not given.get("user"):
        raise ConninfoInvalid("the connection string must name host and user")
    defaults = {"dbname": "replication" if replication else "postgres"}
    defaults["sslmode"] = "prefer" if _is_local(given) else "verify-full"
    parameters = _compiled_defaults() | _LIVENESS | defaults | given
    parameters["replication"] = "true" if replication else ""
    return parameters


def refined(conninfo: str, **changes: str | None) -> str:
    """The connection string with some parameters set; those that are None stay as they are.

    Raises ConninfoInvalid.
    """
    _given(conninfo)
    return make_conninfo(conninfo, **{k: v for k, v in changes.items() if v is not None})


def describe(parameters: Mapping[str, str]) -> str:
    """Where a connection leads, for messages: never a password."""
    return " ".join(
        f"{key}={parameters[key]}"
        for key in ("host", "port", "user", "dbname")
        if parameters.get(key)
    )


def require_supported_version(server_version: int) -> None:
    """Raises PostgresVersionUnsupported; `server_version` counts like 170010."""
    major = server_version // 10_000
    if major not in SUPPORTED_MAJORS:
        raise PostgresVersionUnsupported(
            f"the server is PostgreSQL {major}, supported are "
            f"{SUPPORTED_MAJORS[0]} to {SUPPORTED_MAJORS[-1]}"
        )


def server_error(sqlstate: str, message: str) -> PgkeepError:
    """The error of our tree for one that PostgreSQL reported in answer to a command."""
    fact = f"{_one_line(message)} (SQLSTATE {sqlstate})"
    if sqlstate == _NOT_IN_PREREQUISITE_STATE:
        return _of_standby(message)(fact)
    for prefix, error in _BY_SQLSTATE.items():
        if sqlstate.startswith(prefix):
            return error(fact)
    return PostgresCommandFailed(fact)


_BY_SQLSTATE: Final[dict[str, type[PgkeepError]]] = {
    "08": PostgresGone,
    "28P01": PostgresAuthenticationFailed,
    "28": PostgresDenied,
    "42501": ReplicationDenied,  # all that we do over replication needs that one right
    "53300": PostgresConnectionsExhausted,
    "57P": PostgresGone,  # admin_shutdown, crash_shutdown, cannot_connect_now …
}
_NOT_IN_PREREQUISITE_STATE: Final = "55000"
# What xlog.c and basebackup_incremental.c say of a standby's backup shares its SQLSTATE with much
# else, so the English words must do here, too; in other languages it is PostgresCommandFailed.
_OF_STANDBY: Final[tuple[tuple[str, type[PgkeepError]], ...]] = (
    ("the standby was promoted during online backup", StandbyPromoted),
    ("full_page_writes=off", FullPageWritesOff),
    ("manifest requires WAL from final timeline", StandbyIdle),
)
# libpq does not hand out the SQLSTATE of a failed connection attempt, so its English words must
# do. A server that speaks another language falls through to PostgresUnreachable with its text.
_BY_WORDS: Final[tuple[tuple[re.Pattern[str], type[PgkeepError]], ...]] = tuple(
    (re.compile(words, re.IGNORECASE), error)
    for words, error in (
        (r"too many (clients|connections)|connection slots|max_wal_senders", _BY_SQLSTATE["53300"]),
        (r"password authentication failed|no password supplied", _BY_SQLSTATE["28P01"]),
        (r"replication role|permission denied to start WAL sender", _BY_SQLSTATE["42501"]),
        (r"pg_hba\.conf|authentication failed|not permitted to log in", _BY_SQLSTATE["28"]),
        (r"permission denied for database", _BY_SQLSTATE["28"]),
        (r"role \".*\" does not exist", _BY_SQLSTATE["28"]),
        (r"certificate|(?-i:SSL)", PostgresTlsFailed),
    )
)


def _of_standby(message: str) -> type[PgkeepError]:
    found = (error for words, error in _OF_STANDBY if words in message)
    return next(found, PostgresCommandFailed)


def _connection_error(message: str, parameters: Mapping[str, str]) -> PgkeepError:
    text = _one_line(_redact(message, parameters))
    fact = f"cannot connect to {describe(parameters)}: {text}"
    for words, error in _BY_WORDS:
        if words.search(message):
            return error(fact)
    return PostgresUnreachable(fact)


def _redact(message: str, parameters: Mapping[str, str]) -> str:
    secrets = [v for k, v in parameters.items() if "password" in k or "secret" in k or "_key" in k]
    for secret in filter(None, secrets):
        message = message.replace(secret, _REDACTED)
    return message


def _one_line(message: str) -> str:
    """libpq joins lines: one per address tried, then advice; severities go, the facts stay."""
    lines = [_SEVERITY.sub("", line.strip()) for line in message.splitlines()]
    return "; ".join(filter(None, lines)) or "no reason given"


def _given(conninfo: str) -> dict[str, str]:
    """What a conninfo string or URI says; raises ConninfoInvalid without quoting any of it."""
    try:
        options = pq.Conninfo.parse(conninfo.encode())
    except psycopg.OperationalError:
        raise ConninfoInvalid("the connection string cannot be parsed") from None
    given = {o.keyword.decode(): o.val.decode() for o in options if o.val is not None}
    for keyword in _NEVER_SENT & given.keys():
        raise ConninfoInvalid(f"the connection string names a {keyword}: write its content out")
    return given


def _compiled_defaults() -> dict[str, str]:
    known = {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar is not None
    }
    absent = {key: value for key, value in _WHEN_ABSENT.items() if key in known}
    return {key: value for key, value in (known | absent).items() if key not in _NEVER_SENT}


def _is_local(given: Mapping[str, str]) -> bool:
    """Whether every host named is this machine: a socket directory or a loopback address."""
    hosts = (given.get("hostaddr") or given.get("host") or "").split(",")
    return all(map(_is_loopback, hosts))


def _is_loopback(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
