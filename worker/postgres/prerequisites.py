"""What a server must grant and be set to, and the statement for each thing that it lacks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, LiteralString

from worker.postgres.table_facts import Connect, fetch_one, mapped_errors

Effect = Literal["at once", "after a reload", "after a restart"]

# Backups stream data and WAL at once; a receiver takes one more.
_LEAST_SENDERS: Final = 3
_UNLIMITED: Final = -1


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that is missing, what to run for it, and when that works.

    `needed` False: everything goes on without it, and something is at risk.
    """

    fact: str
    statement: str
    effect: Effect
    needed: bool = True


def lacks(connect: Connect, database: str) -> list[Lack]:
    """What the server behind `connect` lacks, the most needed first. Raises what connecting
    does.
    """
    with connect(database) as connection, mapped_errors():
        found = fetch_one(connection, _FOUND)
    missing = [*_of_role(found), *_of_server(found), *_of_slots(found)]
    return sorted(missing, key=lambda lack: not lack.needed)


def _of_role(found: Mapping[str, Any]) -> Iterator[Lack]:
    role = found["role"]
    if not (found["replicates"] or found["is_superuser"]):
        yield Lack(f"role {role} may not replicate", f"ALTER ROLE {role} REPLICATION;", "at once")
    if not found["sees_settings"]:
        yield Lack(
            f"role {role} sees neither all settings nor the state of slots",
            f"GRANT pg_monitor TO {role};",
            "at once",
            needed=False,
        )
    for name in found["closed_databases"]:
        yield Lack(
            f"role {role} may not connect to database {name}",
            f"GRANT CONNECT ON DATABASE {name} TO {role};",
            "at once",
        )


def _of_server(found: Mapping[str, Any]) -> Iterator[Lack]:
    if found["wal_level"] == "minimal":
        yield Lack("wal_level is minimal", _set("wal_level = 'replica'"), "after a restart")
    if found["full_page_writes"] == "off":
        yield Lack(
            "full_page_writes is off: pages written during a backup may be torn",
            _set("full_page_writes = on"),
            "after a reload",
        )
    if int(found["max_wal_senders"]) < _LEAST_SENDERS:
        yield Lack(
            f"max_wal_senders is {found['max_wal_senders']}",
            _set("max_wal_senders = 10"),
            "after a restart",
        )


def _of_slots(found: Mapping[str, Any]) -> Iterator[Lack]:
    """For those who receive WAL; who pushes it needs no slot."""
    if int(found["max_replication_slots"]) < 1:
        yield Lack(
            "max_replication_slots is 0: no WAL can be received",
            _set("max_replication_slots = 10"),
            "after a restart",
            needed=False,
        )
    if int(found["max_slot_wal_keep_size"]) == _UNLIMITED:
        yield Lack(
            "nothing limits what a slot keeps: a receiver that stays away fills the server's disk",
            _set("max_slot_wal_keep_size = '64GB'"),
            "after a reload",
            needed=False,
        )


def _set(assignment: str) -> str:
    return f"ALTER SYSTEM SET {assignment};"


# Names come quoted by the server, ready to be pasted.
_FOUND: Final[LiteralString] = """
SELECT quote_ident(current_user) AS role,
       rolreplication AS replicates,
       rolsuper AS is_superuser,
       pg_has_role(current_user, 'pg_monitor', 'USAGE') AS sees_settings,
       ARRAY(SELECT quote_ident(datname) FROM pg_database
              WHERE datallowconn AND datconnlimit <> -2
                AND NOT has_database_privilege(datname, 'CONNECT')
              ORDER BY datname) AS closed_databases,
       current_setting('wal_level') AS wal_level,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('max_wal_senders') AS max_wal_senders,
       current_setting('max_replication_slots') AS max_replication_slots,
       (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
           AS max_slot_wal_keep_size
  FROM pg_roles WHERE rolname = current_user
"""
