"""The heartbeat table in a copy: how new its newest row is, and whether rows are missing."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, LiteralString

from psycopg import sql

from worker.postgres.instance import Instance, connect_instance
from worker.postgres.table_facts import TableName, fetch_all, mapped_errors


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """`newest` of all rows, None without one. `recent` rows are from `since` on, and between two
    neighbours of them at most `missing` numbers of the identity column `id`; None without such.
    """

    newest: datetime | None
    recent: int
    missing: int | None


def read_heartbeats(
    instance: Instance, table: TableName, since: datetime, *, statement_timeout_s: int
) -> Heartbeats | None:
    """None when the copy has no such table. Raises as connect_instance and mapped_errors do."""
    limit = f"-c statement_timeout={statement_timeout_s}s"
    with (
        connect_instance(instance, table.database, options=[limit]) as connection,
        mapped_errors(),
    ):
        schema_and_name = {"schema": table.schema, "table": table.table}
        known = fetch_all(connection, _COLUMNS, schema_and_name)
        if not known:
            return None
        numbered = known[0]["numbered"]
        query = sql.SQL(_HEARTBEATS).format(
            missing=_MISSING if numbered else sql.SQL("NULL::bigint"),
            numbers=_NUMBERS if numbered else sql.SQL("at"),
            table=table.identifier,
        )
        row = connection.execute(query, {"since": since}).fetchone()
    newest, recent, missing = row or (None, 0, None)
    return Heartbeats(newest and newest.astimezone(UTC), recent, missing)


_COLUMNS: Final[LiteralString] = """
SELECT EXISTS (SELECT FROM pg_attribute AS id
                WHERE id.attrelid = class.oid AND id.attname = 'id' AND id.attidentity <> '')
       AS numbered
  FROM pg_class AS class
  JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
 WHERE namespace.nspname = %(schema)s AND class.relname = %(table)s
"""

_NUMBERS: Final = sql.SQL("id, lag(id) OVER (ORDER BY id) AS before")
_MISSING: Final = sql.SQL("coalesce(max(id - before - 1), 0)")

_HEARTBEATS: Final[LiteralString] = """
SELECT (SELECT max(at) FROM {table}), count(*), {missing}
  FROM (SELECT {numbers} FROM {table} WHERE at >= %(since)s) AS recent
"""
