"""What happens to the source between two backups: some rows change, most tables do not."""

from collections.abc import Sequence

from psycopg import sql

from local.benchmark.source import DATABASE, TABLES, settle
from local.postgres_server import PostgresServer

# So many of the sixteen tables change in one round; others the next time.
_BUSY = 4
# Rounds begin this share of a table apart.
_STRIDE = 0.13
_UPDATE = sql.SQL(
    "update {table} set changed_at = now(), amount = amount + 1, state = 'delivered' "
    "where id > {start} * (select max(id) from {table}) "
    "and id <= {stop} * (select max(id) from {table})"
)


def freeze(server: PostgresServer) -> None:
    """As a database that has lived a while: its first vacuum, which touches every page, is over."""
    _run(server, sql.SQL("vacuum (freeze) {table}"), TABLES)
    settle(server)


def change(server: PostgresServer, percent: float, number: int) -> None:
    """Update so much of all rows, in a quarter of the tables, neighbours all; then vacuum.

    Round `number` has places of its own. Scattered rows would change up to a page for each row.
    """
    first = number * _BUSY % len(TABLES)
    busy, share = TABLES[first : first + _BUSY], percent / 100 * len(TABLES) / _BUSY
    start = number * _STRIDE % (1 - share)
    _run(server, _UPDATE, busy, start=start, stop=start + share)
    _run(server, sql.SQL("vacuum {table}"), busy)
    settle(server)


def _run(
    server: PostgresServer, statement: sql.SQL, tables: Sequence[sql.Identifier], **values: float
) -> None:
    literals = {name: sql.Literal(value) for name, value in values.items()}
    with server.connect(DATABASE) as connection:
        for table in tables:
            connection.execute(statement.format(table=table, **literals))
