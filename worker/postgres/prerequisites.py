"""What a server must grant and be set to, and the statement for each thing that it lacks.

Read-only SQL as the role in question: whatever it may not see, it cannot be told of. Statements are
quoted, and ready for an administrator's psql.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, LiteralString

from worker.postgres.table_facts import Connect, fetch_all, mapped_errors

Effect = Literal["at once", "after a reload", "after a restart"]
Place = Literal["sql", "postgresql.conf", "pg_hba.conf"]

# Backups stream data and WAL at once; a receiver takes one more.
_LEAST_SENDERS: Final = 3
_UNLIMITED: Final = -1


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that is missing, and what mends it: a `statement` to run, or a line for a file.

    `database` is where it must be run; None: anywhere. `needed` False: everything goes on without
    it, and something is at risk.
    """

    fact: str
    statement: str
    effect: Effect
    place: Place = "sql"
    database: str | None = None
    needed: bool = True


@dataclass(frozen=True, slots=True)
class SlotWish:
    """The slot that a receiver would use, and whether it may make it."""

    name: str
    may_create: bool


def lacks(connect: Connect, database: str, slot: SlotWish | None) -> list[Lack]:
    """What the server behind `connect` lacks, the most needed first. Raises what connecting does.

    Rights are replicated, so a standby is asked for its settings only; without `slot` nothing is
    said of receiving WAL.
    """
    with connect(database) as connection, mapped_errors():
        [found] = fetch_all(connection, _FOUND, {"slot": slot and slot.name})
    missing = [] if found["in_recovery"] else list(_of_role(found))
    missing += _of_wal(found)
    if slot is not None:
        missing += [*_of_slots(found, slot), *_of_archiver(found)]
    return sorted(missing, key=lambda lack: not lack.needed)


def setting_lack(
    fact: str, name: str, value: str, effect: Effect, *, by_sql: bool, needed: bool = True
) -> Lack:
    """`value` as ALTER SYSTEM and postgresql.conf both write it; `by_sql`: ALTER SYSTEM works."""
    assignment = f"{name} = {value}"
    if by_sql:
        return Lack(fact, f"ALTER SYSTEM SET {assignment};", effect, needed=needed)
    return Lack(fact, assignment, effect, "postgresql.conf", needed=needed)


def _of_role(found: Mapping[str, Any]) -> Iterator[Lack]:
    role = found["role"]
    if not (found["replicates"] or found["is_superuser"]):
        yield Lack(f"role {role} may not replicate", f"ALTER ROLE {role} REPLICATION;", "at once")
    for name in found["closed_databases"]:
        yield Lack(
            f"role {role} may not connect to database {name}",
            f"GRANT CONNECT ON DATABASE {name} TO {role};",
            "at once",
        )
    if not found["sees_settings"]:
        yield Lack(
            f"role {role} sees neither all settings nor what waits to be archived",
            f"GRANT pg_monitor TO {role};",
            "at once",
            needed=False,
        )


def _of_wal(found: Mapping[str, Any]) -> Iterator[Lack]:
    """A server with walsenders does not start with wal_level minimal: both are told together."""
    by_sql = found["by_sql"]
    if found["wal_level"] == "minimal":
        fact = "wal_level is minimal: no backup can be taken"
        yield setting_lack(fact, "wal_level", "'replica'", "after a restart", by_sql=by_sql)
    if found["full_page_writes"] == "off":
        fact = "full_page_writes is off: pages written during a backup may be torn"
        yield setting_lack(fact, "full_page_writes", "on", "after a reload", by_sql=by_sql)
    if (senders := found["max_wal_senders"]) < _LEAST_SENDERS:
        fact = f"max_wal_senders is {senders}, and {_LEAST_SENDERS} are needed"
        yield setting_lack(fact, "max_wal_senders", "10", "after a restart", by_sql=by_sql)


def _of_slots(found: Mapping[str, Any], slot: SlotWish) -> Iterator[Lack]:
    """For those who receive WAL; who pushes it needs no slot."""
    by_sql, limit = found["by_sql"], found["max_replication_slots"]
    if found["has_slot"]:
        pass
    elif found["slots"] >= limit:
        yield setting_lack(
            f"all {limit} replication slots are taken: no WAL can be received",
            "max_replication_slots",
            str(max(10, limit + 2)),
            "after a restart",
            by_sql=by_sql,
            needed=False,
        )
    elif not slot.may_create:
        yield Lack(
            f"there is no slot {slot.name}, and create_slot is off",
            f"SELECT pg_create_physical_replication_slot('{slot.name}', true);",
            "at once",
            needed=False,
        )
    if found["max_slot_wal_keep_size"] == _UNLIMITED:
        yield setting_lack(
            "nothing limits what a slot keeps: a receiver that stays away fills the server's disk",
            "max_slot_wal_keep_size",
            "'64GB'",
            "after a reload",
            by_sql=by_sql,
            needed=False,
        )


def _of_archiver(found: Mapping[str, Any]) -> Iterator[Lack]:
    """A slot of ours brings the tail as well; without one, a segment that is not full stays."""
    if found["archive_mode"] == "off" or found["archive_timeout"] or found["has_slot"]:
        return
    yield setting_lack(
        "archive_timeout is 0: a quiet server hands over nothing for hours",
        "archive_timeout",
        "'300s'",
        "after a reload",
        by_sql=found["by_sql"],
        needed=False,
    )


# Names come quoted by the server, ready to be pasted. allow_alter_system came with PostgreSQL 17.
_FOUND: Final[LiteralString] = """
SELECT quote_ident(current_user) AS role,
       rolreplication AS replicates,
       rolsuper AS is_superuser,
       pg_is_in_recovery() AS in_recovery,
       pg_has_role(current_user, 'pg_monitor', 'USAGE') AS sees_settings,
       ARRAY(SELECT quote_ident(datname) FROM pg_database
              WHERE datallowconn AND datconnlimit <> -2
                AND NOT has_database_privilege(datname, 'CONNECT')
              ORDER BY datname) AS closed_databases,
       coalesce(current_setting('allow_alter_system', true), 'on') = 'on' AS by_sql,
       current_setting('wal_level') AS wal_level,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('max_wal_senders')::int AS max_wal_senders,
       current_setting('max_replication_slots')::int AS max_replication_slots,
       (SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
           AS max_slot_wal_keep_size,
       current_setting('archive_mode') AS archive_mode,
       (SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout') AS archive_timeout,
       (SELECT count(*) FROM pg_replication_slots) AS slots,
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(slot)s::text) AS has_slot
  FROM pg_roles WHERE rolname = current_user
"""
