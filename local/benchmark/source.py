"""The cluster that all contenders back up: tables of orders, quiet while it is measured."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import psycopg
from psycopg import sql

from local.document_database.prose import Prose, make_prose
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer

DATABASE = "benchmark"
# Programs that work file by file need several of like size, or one of their processes idles.
TABLES = tuple(sql.Identifier(f"orders_{number:02}") for number in range(16))
_SEED_ROWS = 50_000
_INDEX_BYTES_PER_ROW = 23  # of a B-tree on a bigint, filled to 90 %
_DEFINITION = sql.SQL(
    "id bigint generated always as identity, customer int, placed_at timestamptz, "
    "changed_at timestamptz, country text, state text, amount numeric(12, 2), token text, "
    "remark text"
)
_COLUMNS = sql.SQL("customer, placed_at, changed_at, country, state, amount, token, remark")
_DELIVERY = timedelta(days=3)
_COUNTRIES = ("Austria", "Denmark", "France", "Germany", "Italy", "Netherlands", "Poland", "Spain")
_STATES = ("delivered", "shipped", "paid", "open", "cancelled")
_STATE_WEIGHTS = (70, 12, 9, 6, 3)
_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_MIB = 1 << 20
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_SETTINGS = {
    "autovacuum": "off",  # nobody writes while somebody is measured
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "max_connections": "20",
}


@contextmanager
def running_source(
    programs: Path, directory: Path, size_bytes: int, settings: Mapping[str, str] = NO_SETTINGS
) -> Iterator[PostgresServer]:
    """A server with about `size_bytes` of data, checkpointed and in the page cache."""
    settings = {**_SETTINGS, **settings}
    options = ClusterOptions(fsync=False, backup_user_reads_data=True, settings=settings)
    with PostgresServer.create(programs, directory, options) as server:
        server.query(f"create database {DATABASE}")
        with server.connect(DATABASE) as connection:
            _fill(connection, size_bytes)
        settle(server)
        yield server


def settle(server: PostgresServer) -> None:
    """No dirty page left, so that nobody's backup pays for a checkpoint; every file read once."""
    server.query("checkpoint")
    for path in server.data.rglob("*"):
        if path.is_file():
            _read(path)


def data_size(server: PostgresServer) -> int:
    """Bytes of all files that a backup holds: everything but the WAL."""
    files = (path for path in server.data.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "pg_wal" not in path.parts)


def make_orders(connection: psycopg.Connection) -> None:
    """A table `orders` with the rows that everything here is made of."""
    table = sql.Identifier("orders")
    connection.execute(sql.SQL("create table {} ({})").format(table, _DEFINITION))
    _copy(connection, table, make_prose(seed=1))


def _fill(connection: psycopg.Connection, size_bytes: int) -> None:
    """The same rows in every table: files are compressed apart, so none gains from another."""
    first, *others = TABLES
    for table in TABLES:
        connection.execute(sql.SQL("create table {} ({})").format(table, _DEFINITION))
    _copy(connection, first, make_prose(seed=1))
    for table in others:
        _insert(connection, source=first, target=table, rows=_SEED_ROWS)
    rows = _rows_for(connection, first, size_bytes // len(TABLES))
    for table in TABLES:
        _multiply(connection, table, rows)
        connection.execute(sql.SQL("alter table {} add primary key (id)").format(table))


def _copy(connection: psycopg.Connection, table: sql.Identifier, prose: Prose) -> None:
    """Orders: numbers, times, a token that does not compress, a sentence that somebody wrote."""
    chance = prose.random
    statement = sql.SQL("copy {} ({}) from stdin").format(table, _COLUMNS)
    with connection.cursor().copy(statement) as copy:
        for number in range(_SEED_ROWS):
            at = _FIRST_DAY + timedelta(seconds=number * 7 + chance.randrange(7))
            amount = f"{chance.lognormvariate(4, 1):.2f}"
            state = chance.choices(_STATES, _STATE_WEIGHTS)[0]
            token = f"{chance.getrandbits(32):08x}"
            origin = (chance.randrange(50_000), at, at + _DELIVERY, chance.choice(_COUNTRIES))
            copy.write_row((*origin, state, amount, token, prose.title()))


def _rows_for(connection: psycopg.Connection, seeded: sql.Identifier, size_bytes: int) -> int:
    name = sql.Literal(seeded.as_string())
    found = connection.execute(sql.SQL("select pg_relation_size({})").format(name)).fetchone()
    bytes_per_row = (found[0] if found else 0) / _SEED_ROWS + _INDEX_BYTES_PER_ROW
    return int(size_bytes / bytes_per_row)


def _multiply(connection: psycopg.Connection, table: sql.Identifier, wanted: int) -> None:
    """Copies of the seed lie megabytes apart: zstd's window at level 1, 512 KiB, holds no two."""
    rows = _SEED_ROWS
    while rows < wanted:
        more = min(rows, wanted - rows)
        _insert(connection, source=table, target=table, rows=more)
        rows += more


def _insert(
    connection: psycopg.Connection, *, source: sql.Identifier, target: sql.Identifier, rows: int
) -> None:
    statement = sql.SQL("insert into {} ({}) select {} from {} limit {}")
    connection.execute(statement.format(target, _COLUMNS, _COLUMNS, source, sql.Literal(rows)))


def _read(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(_MIB):
            pass
