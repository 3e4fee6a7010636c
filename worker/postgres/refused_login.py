"""What would let a login in that was refused, as far as the server's words tell.

libpq hands out no SQLSTATE for a connection that failed, so English words must do, as in
worker.postgres.connection; a server that speaks another language gets no advice. Names come from
our own connection string, and an address is believed only when it reads as one: what a server says
never becomes part of a statement.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final

from worker.postgres.connection import resolve
from worker.postgres.prerequisites import Lack

# Base backup, its WAL, a receiver, and SQL beside each of them; roles.sql gives as many.
CONNECTION_LIMIT: Final = 10
_FEWEST_SENDERS: Final = 10
_METHOD: Final = "scram-sha-256"
_SOCKET: Final = "[local]"  # how the server writes the address of a Unix socket's client

Parameters = Mapping[str, str]


def lacks_of_refusal(message: str, conninfo: str) -> tuple[Lack, ...]:
    """Empty where nothing is known to help. `message` is the error's fact."""
    parameters = resolve(conninfo, replication=False)
    for words, advice in _ADVICE:
        if found := words.search(message):
            lack = advice(found, parameters)
            return () if lack is None else (lack,)
    return ()


def quoted(name: str) -> str:
    """As SQL and pg_hba.conf both read a name. Plain is what cannot be a word of either: those of
    their words that have an underscore begin with current, session or system (kwlist.h).
    """
    plain = re.fullmatch(r"(?!current_|session_|system_)[a-z][a-z0-9]*_[a-z0-9_]*", name)
    return name if plain else '"' + name.replace('"', '""') + '"'


def _hba_line(found: re.Match[str], parameters: Parameters) -> Lack | None:
    host, user = found["host"], quoted(parameters["user"])
    address = _network(host)
    if address is None or "\n" in user:
        return None
    database = "replication" if found["replication"] else "all"  # facts are asked of each database
    fact = f"pg_hba.conf does not let {user} in from {host}"
    if found["rejects"]:
        fact += ": the line must stand above the one that rejects"
    words = (_kind(host, found.string), database, user, address, _METHOD)
    return Lack(fact, "  ".join(filter(None, words)), "after a reload", "pg_hba.conf")


def _kind(host: str, message: str) -> str:
    """Never a line that lets passwords pass over a network in clear."""
    if host == _SOCKET:
        return "local"
    in_clear = "no encryption" in message and "SSL encryption" not in message
    return "host" if in_clear and ip_address(host).is_loopback else "hostssl"


def _network(host: str) -> str | None:
    """One address as pg_hba.conf writes it; empty for a socket, None for what is no address."""
    if host == _SOCKET:
        return ""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return f"{address}/{address.max_prefixlen}"


def _role(change: str, fact: str) -> Callable[[re.Match[str], Parameters], Lack]:
    def lack(_: re.Match[str], parameters: Parameters) -> Lack:
        role = quoted(parameters["user"])
        return Lack(f"role {role} {fact}", f"ALTER ROLE {role} {change};", "at once")

    return lack


def _connect(found: re.Match[str], parameters: Parameters) -> Lack | None:
    """For the database that SQL needs to tell of all others."""
    if found["database"] != parameters["dbname"]:
        return None
    database, role = quoted(parameters["dbname"]), quoted(parameters["user"])
    return Lack(
        f"role {role} may not connect to database {database}",
        f"GRANT CONNECT ON DATABASE {database} TO {role};",
        "at once",
    )


def _senders(found: re.Match[str], _: Parameters) -> Lack | None:
    """With 0 of them, wal_level may be minimal: a server with both changed by half does not start.
    Then SQL has to tell what it is (worker.postgres.prerequisites).
    """
    if found["limit"] == "0":
        return None
    wanted = max(_FEWEST_SENDERS, 2 * int(found["limit"]))
    return Lack(
        f"all {found['limit']} walsenders are taken",
        f"ALTER SYSTEM SET max_wal_senders = {wanted};",
        "after a restart",
    )


_Advice = Callable[[re.Match[str], Parameters], Lack | None]
# As InitializeSessionUserId, ClientAuthentication, CheckMyDatabase and InitPostgres say it.
_ADVICE: Final[tuple[tuple[re.Pattern[str], _Advice], ...]] = (
    (
        re.compile(
            r"(?:(?P<rejects>pg_hba\.conf rejects )|no pg_hba\.conf entry for )"
            r'(?P<replication>replication )?(?:connection (?:from|for) )?host "(?P<host>[^"]*)"'
        ),
        _hba_line,
    ),
    (re.compile(r'permission denied for database "(?P<database>.*?)"(?:;|$)'), _connect),
    (re.compile(r"is not permitted to log in"), _role("LOGIN", "may not log in")),
    (
        re.compile(r"too many connections for role"),
        _role(f"CONNECTION LIMIT {CONNECTION_LIMIT}", "has all the connections that it may have"),
    ),
    (
        re.compile(r"or replication role|permission denied to start WAL sender"),
        _role("REPLICATION", "may not replicate"),
    ),
    (re.compile(r'exceeds "?max_wal_senders"? \(currently (?P<limit>\d{1,6})\)'), _senders),
)
