"""What a cluster says of itself at backup time: what a host that restores it must match.

Read-only SQL over an ordinary connection; superuser rights are not needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

from shared.errors import PgkeepError
from worker.postgres.configuration_facts import ConfigurationFacts, configuration_facts
from worker.postgres.table_facts import Connect, fetch_all, fetch_one, mapped_errors


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """One connectable database. `extensions` read `name version`."""

    name: str
    collation_provider: str
    collation_version: str | None
    extensions: tuple[str, ...]
    unlogged_tables: int


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Sizes in bytes. `settings`: what decides whether a copy starts and a backup is possible."""

    version_num: int
    version: str
    system_identifier: str
    timeline: int
    in_recovery: bool
    block_size: int
    wal_segment_size: int
    data_checksums: bool
    bootstrap_superuser: str
    preload_libraries: tuple[str, ...]
    settings: Mapping[str, str]
    databases: tuple[DatabaseFacts, ...]
    configuration: ConfigurationFacts = field(default_factory=ConfigurationFacts)


def server_facts(connect: Connect, database: str) -> ServerFacts:
    """Asks `database`, then each database that accepts connections. Raises as connection does."""
    with connect(database) as connection, mapped_errors():
        server = fetch_one(connection, _SERVER)
        settings = {row["name"]: row["setting"] for row in fetch_all(connection, _SETTINGS)}
        databases = fetch_all(connection, _DATABASES)
        configuration = configuration_facts(connection)
    return ServerFacts(
        **server,
        preload_libraries=_library_list(settings.get("shared_preload_libraries", "")),
        settings=settings,
        databases=tuple(_facts_of_each(connect, database, databases)),
        configuration=configuration,
    )


def next_transaction(connect: Connect, database: str) -> int:
    """The first number, with its epoch, that no transaction that is over can have."""
    with connect(database) as connection, mapped_errors():
        return int(fetch_one(connection, _NEXT_TRANSACTION)["number"])


def _facts_of_each(
    connect: Connect, database: str, rows: Iterable[Mapping[str, Any]]
) -> Iterator[DatabaseFacts]:
    """A database that was dropped since it was listed is no reason for a backup to fail."""
    for row in rows:
        try:
            yield _database_facts(connect, row)
        except PgkeepError:
            with connect(database) as connection, mapped_errors():
                if row["name"] in {item["name"] for item in fetch_all(connection, _DATABASES)}:
                    raise


def _database_facts(connect: Connect, row: Mapping[str, Any]) -> DatabaseFacts:
    with connect(row["name"]) as connection, mapped_errors():
        extensions = tuple(item["extension"] for item in fetch_all(connection, _EXTENSIONS))
        unlogged = fetch_one(connection, _UNLOGGED)["count"]
    return DatabaseFacts(**row, extensions=extensions, unlogged_tables=unlogged)


def _library_list(value: str) -> tuple[str, ...]:
    return tuple(filter(None, (library.strip().strip('"') for library in value.split(","))))


_SERVER: Final[LiteralString] = """
SELECT current_setting('server_version_num')::int AS version_num,
       current_setting('server_version') AS version,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
       END AS timeline,
       pg_is_in_recovery() AS in_recovery,
       current_setting('block_size')::int AS block_size,
       (SELECT bytes_per_wal_segment FROM pg_control_init()) AS wal_segment_size,
       current_setting('data_checksums')::bool AS data_checksums,
       (SELECT rolname FROM pg_roles WHERE oid = 10) AS bootstrap_superuser
"""  # 10: BOOTSTRAP_SUPERUSERID of pg_authid.dat, whatever initdb --username called it

_NEXT_TRANSACTION: Final[LiteralString] = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS number
"""

_SETTINGS: Final[LiteralString] = """
SELECT name, setting FROM pg_settings
 WHERE name IN ('shared_preload_libraries', 'wal_level', 'summarize_wal', 'wal_summary_keep_time',
                'archive_mode', 'full_page_writes', 'max_wal_senders', 'max_connections',
                'max_worker_processes', 'max_prepared_transactions', 'max_locks_per_transaction')
"""

_DATABASES: Final[LiteralString] = """
SELECT datname AS name, datlocprovider::text AS collation_provider,
       datcollversion AS collation_version
  FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname
"""  # -2: DATCONNLIMIT_INVALID_DB of pg_database.h, a database whose DROP has begun

_EXTENSIONS: Final[LiteralString] = """
SELECT extname || ' ' || extversion AS extension FROM pg_extension ORDER BY extname
"""

_UNLOGGED: Final[LiteralString] = """
SELECT count(*) FROM pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'm')
"""
