"""What index maintenance would gain: leftovers, invalid and bloated indexes, old statistics.

Bloat is estimated from the planner's statistics, without reading the index: the pages that its
rows would fill, against the pages that it has. Duplicates that B-tree stores once (since
PostgreSQL 13) make an index smaller than estimated, so the estimate errs towards doing nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from worker.postgres.table_facts import fetch_all

Connection = psycopg.Connection[TupleRow]


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """`needed_bytes` is an estimate; None where nothing can be said (no B-tree, no statistics).

    `leftover`: what an interrupted REINDEX CONCURRENTLY left behind, of use to nobody.
    """

    database: str
    schema: str
    index: str
    bytes: int
    valid: bool
    leftover: bool
    needed_bytes: int | None

    @property
    def bloat_bytes(self) -> int:
        return 0 if self.needed_bytes is None else max(0, self.bytes - self.needed_bytes)

    @property
    def bloat_ratio(self) -> float:
        return self.bloat_bytes / self.bytes if self.bytes else 0.0

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.index)

    def __str__(self) -> str:
        return f"{self.database}.{self.schema}.{self.index}"


@dataclass(frozen=True, slots=True)
class StatisticsFacts:
    """A table whose statistics are old: `changed` rows of `rows` since they were taken."""

    database: str
    schema: str
    table: str
    bytes: int
    rows: float
    changed: int

    @property
    def share(self) -> float:
        return self.changed / max(self.rows, 1.0)

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    def __str__(self) -> str:
        return f"{self.database}.{self.schema}.{self.table}"


def in_recovery(connection: Connection) -> bool:
    return bool(fetch_all(connection, "SELECT pg_is_in_recovery() AS yes")[0]["yes"])


def databases(connection: Connection) -> list[str]:
    """Those that accept connections; templates are nobody's to change."""
    return [row["datname"] for row in fetch_all(connection, _DATABASES)]


def indexes(connection: Connection) -> list[IndexFacts]:
    """Of this database that the role may rebuild, by name. Reads no index."""
    return [IndexFacts(**row) for row in fetch_all(connection, _INDEXES)]


def old_statistics(connection: Connection) -> Iterator[StatisticsFacts]:
    """Of tables of this database of which a tenth has changed since, or that have none at all."""
    for row in fetch_all(connection, _STATISTICS):
        yield StatisticsFacts(**row)


def size_of(connection: Connection, index: IndexFacts) -> int:
    """Bytes now; 0 for one that is gone."""
    query: LiteralString = "SELECT coalesce(pg_relation_size(to_regclass(%(name)s)), 0) AS bytes"
    [row] = fetch_all(connection, query, {"name": index.identifier.as_string(connection)})
    return int(row["bytes"])


_DATABASES: Final[LiteralString] = """
SELECT datname FROM pg_database
 WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 ORDER BY datname
"""

# Layout of a B-tree page: 24 bytes of header, 16 of special space, a 4 byte line pointer for each
# tuple (bufpage.h, nbtree.h). A tuple: 8 bytes of header, the null bitmap with it where one is
# needed (itup.h), then the columns, all rounded up to 8. Exclusion constraints cannot be rebuilt
# concurrently; what is being built just now is somebody else's.
_INDEXES: Final[LiteralString] = """
WITH candidate AS (
    SELECT index_class.oid, space.nspname, index_class.relname, index_class.reltuples,
           pg_relation_size(index_class.oid) AS bytes, entry.indisvalid, entry.indrelid,
           entry.indkey, entry.indpred, entry.indexprs, method.amname,
           coalesce(substring(array_to_string(index_class.reloptions, ' ')
                              FROM 'fillfactor=([0-9]+)')::int, 90) AS fillfactor
      FROM pg_index AS entry
      JOIN pg_class AS index_class ON index_class.oid = entry.indexrelid
      JOIN pg_am AS method ON method.oid = index_class.relam
      JOIN pg_namespace AS space ON space.oid = index_class.relnamespace
     WHERE index_class.relkind = 'i' AND index_class.relpersistence = 'p'
       AND NOT entry.indisexclusion
       AND space.nspname NOT IN ('pg_catalog', 'information_schema')
       AND space.nspname NOT LIKE 'pg\\_toast%' AND space.nspname NOT LIKE 'pg\\_temp\\_%'
       AND pg_has_role(index_class.relowner, 'USAGE')
       AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS progress
                        WHERE progress.relid = entry.indrelid)
), width AS (
    SELECT candidate.oid,
           sum((1 - statistic.null_frac) * statistic.avg_width) AS data,
           bool_or(statistic.null_frac > 0) AS has_nulls,
           count(statistic.attname) AS known
      FROM candidate
      JOIN pg_class AS owner ON owner.oid = candidate.indrelid
      JOIN pg_namespace AS space ON space.oid = owner.relnamespace
      JOIN pg_attribute AS attribute
        ON attribute.attrelid = candidate.indrelid AND attribute.attnum = ANY (candidate.indkey)
      LEFT JOIN pg_stats AS statistic
        ON statistic.schemaname = space.nspname AND statistic.tablename = owner.relname
       AND statistic.attname = attribute.attname AND NOT statistic.inherited
     WHERE candidate.amname = 'btree' AND candidate.indexprs IS NULL AND candidate.indpred IS NULL
     GROUP BY candidate.oid
)
SELECT current_database() AS database, nspname AS schema, relname AS index, bytes,
       indisvalid AS valid, NOT indisvalid AND relname ~ '_cc(new|old)[0-9]*$' AS leftover,
       CASE WHEN known = array_length(indkey::int2[], 1) AND reltuples > 0 THEN
           current_setting('block_size')::bigint
           * (1 + ceil(reltuples / floor(
               (current_setting('block_size')::int - 24 - 16) * fillfactor / 100.0
               / (4 + 8 * ceil((8 + CASE WHEN has_nulls THEN 8 ELSE 0 END + data) / 8)))))::bigint
       END AS needed_bytes
  FROM candidate LEFT JOIN width USING (oid)
 ORDER BY nspname, relname
"""

_STATISTICS: Final[LiteralString] = """
SELECT current_database() AS database, space.nspname AS schema, owner.relname AS table,
       pg_table_size(owner.oid) AS bytes, greatest(owner.reltuples, 0)::float8 AS rows,
       activity.n_mod_since_analyze AS changed
  FROM pg_stat_user_tables AS activity
  JOIN pg_class AS owner ON owner.oid = activity.relid
  JOIN pg_namespace AS space ON space.oid = owner.relnamespace
 WHERE owner.relkind IN ('r', 'm') AND owner.relpersistence <> 't'
   AND pg_has_role(owner.relowner, 'USAGE')
   AND activity.n_mod_since_analyze > greatest(50, 0.1 * owner.reltuples)
 ORDER BY space.nspname, owner.relname
"""
