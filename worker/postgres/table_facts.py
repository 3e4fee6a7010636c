"""Counting rows of configured tables, so that a drill can tell whether they came back.

Taken before the backup's stream begins (`start`) and again, against the same transaction number,
after the stop LSN is known (`end`); shared.domain.drill defines and compares the numbers.

Each database is counted in one REPEATABLE READ READ ONLY transaction. Its tables are locked in
ACCESS SHARE mode *before* the snapshot is taken: TRUNCATE and rewriting ALTER TABLE are not
MVCC-safe, and a renamed table would be another one. Partition trees are counted leaf by leaf, plain
tables without inheriting children, so that `identity` lists exactly what was counted.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, dict_row

from shared.domain.drill import (
    FIRST_NORMAL_XID,
    XID_SPACE,
    XID_WINDOW,
    SnapshotFacts,
    TableFacts,
    TableState,
)
from shared.domain.lsn import Lsn
from shared.errors import TableNameInvalid
from worker.postgres.connection import server_error

Connect = Callable[[str], psycopg.Connection[TupleRow]]
"""Opens an autocommit connection to the database named."""

LOCK_TIMEOUT_S: Final = 5  # a table that is being rewritten just now is left uncounted
_IDENTIFIER: Final = r'"(?:[^"]|"")+"|[^".\s]+'
_TABLE_NAME: Final = re.compile(rf"(?:({_IDENTIFIER})\.)?({_IDENTIFIER})\.({_IDENTIFIER})")
_CONNECTION_LOST: Final = ("08", "57P")
# Errors that say nothing about the rows: right, type, time, lock, room.
_IN_THE_WAY: Final = ("42501", "42809", "57014", "55P03", "53", "25006")
_UNDEFINED: Final = ("42P01", "3F000")


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A configured table; prints as SQL would quote it."""

    database: str
    schema: str
    table: str

    @classmethod
    def parse(cls, text: str, *, default_database: str) -> "TableName":
        """`[database.]schema.table`, unquoted parts in lower case. Raises TableNameInvalid."""
        match = _TABLE_NAME.fullmatch(text.strip())
        if match is None:
            raise TableNameInvalid(f"{text!r} does not read [database.]schema.table")
        database, schema, table = (part and _unquote(part) for part in match.groups())
        return cls(database or default_database, str(schema), str(table))

    def __str__(self) -> str:
        return ".".join(map(_quote, (self.database, self.schema, self.table)))

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)


@dataclass(frozen=True, slots=True)
class Reference:
    """What rows are told apart by: `xmin` of the start, and the first number not given yet."""

    xmin: int
    horizon: int


def table_facts(
    connect: Connect,
    tables: Iterable[TableName],
    *,
    since: Sequence[SnapshotFacts] = (),
    statement_timeout_s: int,
) -> tuple[SnapshotFacts, ...]:
    """One snapshot for each database that the tables lie in.

    Without `since` these are the facts at start. With the facts at start they are those at end:
    settled is then counted against the same transaction numbers.
    """
    names = sorted(set(tables))
    starts = {facts.database: facts for facts in since}
    snapshots = []
    for database in sorted({name.database for name in names}):
        wanted = [name for name in names if name.database == database]
        with connect(database) as connection, mapped_errors():
            snapshots.append(
                _snapshot_facts(connection, wanted, starts.get(database), statement_timeout_s)
            )
    return tuple(snapshots)


def count_tables(
    connection: psycopg.Connection[TupleRow],
    names: Sequence[TableName],
    reference: Callable[[], Reference],
    *,
    statement_timeout_s: int,
) -> tuple[TableFacts, ...]:
    """Lock, then ask for the reference (the first thing that takes a snapshot), then count."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with connection.transaction():
        _set_limits(connection, statement_timeout_s)
        unlocked = {name: _lock(connection, name) for name in names}
        compared_with = reference()
        return tuple(unlocked[name] or _count(connection, name, compared_with) for name in names)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """The skin: psycopg's errors become those of shared.errors."""
    try:
        yield
    except psycopg.Error as error:
        raise server_error(error.sqlstate or "08006", str(error)) from None


def _snapshot_facts(
    connection: psycopg.Connection[TupleRow],
    names: Sequence[TableName],
    start: SnapshotFacts | None,
    statement_timeout_s: int,
) -> SnapshotFacts:
    seen: dict[str, Any] = {"lsn_before": _wal_position(connection)}

    def take_snapshot() -> Reference:
        seen.update(fetch_one(connection, _SNAPSHOT))
        seen["lsn_after"] = _wal_position(connection)
        return Reference(start.xmin if start else seen["xmin"], seen["horizon"])

    tables = count_tables(connection, names, take_snapshot, statement_timeout_s=statement_timeout_s)
    in_progress = tuple(int(xid) for xid in seen.pop("in_progress"))
    database = names[0].database
    return SnapshotFacts(**seen, database=database, in_progress=in_progress, tables=tables)


def _wal_position(connection: psycopg.Connection[TupleRow]) -> Lsn:
    return Lsn.parse(fetch_one(connection, _WAL_POSITION)["lsn"])


def _set_limits(connection: psycopg.Connection[TupleRow], statement_timeout_s: int) -> None:
    """SET takes no snapshot, unlike set_config(). row_security: rather an error than fewer rows."""
    limits = {"statement_timeout": statement_timeout_s, "lock_timeout": LOCK_TIMEOUT_S}
    for name, seconds in limits.items():
        connection.execute(
            sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(f"{seconds}s"))
        )
    connection.execute("SET LOCAL row_security = off")


def _lock(connection: psycopg.Connection[TupleRow], name: TableName) -> TableFacts | None:
    """Nothing when it is locked, else why it cannot be."""
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(name.identifier)
            )
    except psycopg.Error as error:
        return _failure(name, error)
    return None


def _count(
    connection: psycopg.Connection[TupleRow], name: TableName, reference: Reference
) -> TableFacts:
    try:
        with connection.transaction():
            leaves = fetch_all(connection, _LEAVES, {"table": _quoted(name)})
            kinds = {leaf["kind"] for leaf in leaves}
            identity = tuple(sorted(leaf["oid"] for leaf in leaves))
            if not kinds <= {"r"}:
                problem = "not made of ordinary tables"
                return TableFacts(str(name), TableState.UNCOUNTED, identity, problem=problem)
            if any(leaf["persistence"] != "p" for leaf in leaves):
                return TableFacts(str(name), TableState.UNLOGGED, identity)
            counts = [_count_leaf(connection, leaf, reference) for leaf in leaves]
    except psycopg.Error as error:
        return _failure(name, error)
    rows, settled, ahead = (sum(column) for column in zip((0, 0, 0), *counts, strict=True))
    return TableFacts(str(name), TableState.COUNTED, identity, rows, settled, ahead)


def _count_leaf(
    connection: psycopg.Connection[TupleRow], leaf: Mapping[str, Any], reference: Reference
) -> tuple[int, int, int]:
    query = sql.SQL(_COUNT).format(sql.Identifier(leaf["schema"], leaf["name"]))
    numbers = {
        "space": XID_SPACE,
        "window": XID_WINDOW,
        "normal": FIRST_NORMAL_XID,
        "xmin": reference.xmin % XID_SPACE,
        "given": reference.horizon - reference.xmin,
    }
    row = connection.execute(query, numbers).fetchone()
    rows, settled, ahead = row or (0, 0, 0)
    return rows, settled, ahead


def _failure(name: TableName, error: psycopg.Error) -> TableFacts:
    """What an error means for one table; a lost connection is no matter of one table."""
    sqlstate = error.sqlstate or "08006"
    if sqlstate.startswith(_CONNECTION_LOST):
        raise error
    if sqlstate in _UNDEFINED:
        return TableFacts(str(name), TableState.ABSENT)
    state = TableState.UNCOUNTED if sqlstate.startswith(_IN_THE_WAY) else TableState.UNREADABLE
    return TableFacts(str(name), state, problem=f"SQLSTATE {sqlstate}")


def fetch_one(connection: psycopg.Connection[TupleRow], query: LiteralString) -> dict[str, Any]:
    return fetch_all(connection, query)[0]


def fetch_all(
    connection: psycopg.Connection[TupleRow],
    query: LiteralString,
    parameters: Mapping[str, object] | None = None,
) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _unquote(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()


def _quote(part: str) -> str:
    plain = re.fullmatch(r"[a-z_][a-z0-9_$]*", part)
    return part if plain else '"' + part.replace('"', '""') + '"'


def _quoted(name: TableName) -> str:
    return f"{_quote(name.schema)}.{_quote(name.table)}"


_WAL_POSITION: Final[LiteralString] = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_insert_lsn() END::text AS lsn
"""

# age() counts back from the next number to be given (GetStableLatestTransactionId, as long as the
# transaction has none itself), which no other function tells without using one up.
_SNAPSHOT: Final[LiteralString] = """
SELECT pg_snapshot_xmin(snapshot)::text::bigint AS xmin,
       pg_snapshot_xmax(snapshot)::text::bigint AS xmax,
       pg_snapshot_xmin(snapshot)::text::bigint + age(pg_snapshot_xmin(snapshot)::xid) AS horizon,
       ARRAY(SELECT pg_snapshot_xip(snapshot)::text) AS in_progress
  FROM pg_current_snapshot() AS snapshot
"""

_LEAVES: Final[LiteralString] = """
SELECT leaf.oid, namespace.nspname AS schema, leaf.relname AS name,
       leaf.relkind::text AS kind, leaf.relpersistence::text AS persistence
  FROM pg_class AS root
 CROSS JOIN LATERAL (SELECT root.oid AS oid WHERE root.relkind <> 'p'
                     UNION ALL
                     SELECT relid FROM pg_partition_tree(root.oid)
                      WHERE root.relkind = 'p' AND isleaf) AS counted
  JOIN pg_class AS leaf ON leaf.oid = counted.oid
  JOIN pg_namespace AS namespace ON namespace.oid = leaf.relnamespace
 WHERE root.oid = to_regclass(%(table)s)
"""

# `distance`: how far a row's number lies above xmin, modulo 2^32.
_COUNT: Final[LiteralString] = """
SELECT count(*),
       count(*) FILTER (WHERE xid < %(normal)s OR distance >= %(window)s),
       count(*) FILTER (WHERE xid >= %(normal)s
                          AND distance >= %(given)s AND distance < %(window)s)
  FROM (SELECT xid, mod(xid - %(xmin)s + %(space)s, %(space)s) AS distance
          FROM (SELECT xmin::text::bigint AS xid FROM ONLY {}) AS numbers) AS distances
"""
