"""What happens to a database between two backups of a chain, so that each link has much to say.

`STAGES` are the scenarios of PostgreSQL's own tests of pg_combinebackup, several to a stage; the
first is what the full backup finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from local.postgres_server import PostgresServer
from local.unprivileged import hand_over, server_account

# Cut short by one stage; the stage after the next lengthens it again.
REGROWN: Final = "shrunk"
# CREATE DATABASE … OID needs one that no initdb gives (FirstNormalObjectId of transam.h is 16384).
_DOOMED: Final = "CREATE DATABASE doomed OID = 100000 TEMPLATE mould STRATEGY = file_copy"
_ROWS: Final = "SELECT n AS id, md5(n::text) AS body FROM generate_series(1, 5000) n"
_WIDE: Final = "SELECT n AS id, repeat(md5(n::text), 20) AS body FROM generate_series(1, 5000) n"


@dataclass(frozen=True, slots=True)
class Stage:
    """Statements by database, in this order; each commits by itself."""

    name: str
    statements: Mapping[str, Sequence[str]]
    leaves_unused_blocks: bool = False


STAGES: Final = (
    Stage(
        "the full backup",
        {
            "postgres": (
                f"CREATE TABLE grown AS {_ROWS}",
                "ALTER TABLE grown ADD PRIMARY KEY (id)",
                f"CREATE TABLE {REGROWN} AS {_WIDE}",
                f"CREATE TABLE emptied AS {_ROWS}",
                f"CREATE TABLE dropped AS {_ROWS}",
                f"CREATE TABLE rewritten AS {_ROWS}",
                f"CREATE TABLE widened AS {_ROWS}",
                f"CREATE TABLE clustered AS {_ROWS}",
                "CREATE INDEX clustered_body ON clustered (body)",
                f"CREATE TABLE visible AS {_ROWS}",
                f"CREATE TABLE thinned AS {_ROWS}",
                f"CREATE TABLE moved TABLESPACE outside AS {_ROWS}",
                "CREATE INDEX moved_id ON moved (id) TABLESPACE inside",
                f"CREATE TABLE settled TABLESPACE inside AS {_ROWS}",
                f"CREATE UNLOGGED TABLE forgotten AS {_ROWS}",
                "CREATE TABLE long_values (id int, body text)",
                "ALTER TABLE long_values ALTER body SET STORAGE external",
                "INSERT INTO long_values SELECT id, repeat(body, 500) FROM dropped LIMIT 50",
                """CREATE TABLE found AS SELECT id, ARRAY[id % 7, id % 11] AS words,
                   point(id, -id) AS place, body FROM dropped""",
                "CREATE INDEX ON found USING hash (id)",
                "CREATE INDEX ON found USING gin (words)",
                "CREATE INDEX ON found USING gist (place)",
                "CREATE INDEX ON found USING spgist (body)",
                "CREATE INDEX found_brin ON found USING brin (id) WITH (autosummarize = off)",
                "CREATE SEQUENCE counted",
                "CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM grown",
                "SELECT lo_from_bytea(40000 + id, repeat(body, 300)::bytea) FROM dropped LIMIT 10",
                "VACUUM (FREEZE)",
                "CREATE DATABASE mould",
            ),
            "mould": (
                f"CREATE TABLE cast_in AS {_ROWS}",
                "CREATE INDEX ON cast_in (id)",
                "VACUUM (FREEZE)",
            ),
            "template1": (_DOOMED,),
            "doomed": ("CREATE TABLE ghost AS SELECT 1 AS n", "VACUUM"),
        },
    ),
    Stage(
        "something of everything",
        {
            "postgres": (
                "INSERT INTO grown SELECT n, md5(n::text) FROM generate_series(5001, 20000) n",
                f"DELETE FROM {REGROWN} WHERE id > 2500",  # noqa: S608 - a constant
                f"VACUUM {REGROWN}",
                "TRUNCATE emptied",
                "DROP TABLE dropped",
                "UPDATE rewritten SET body = upper(body) WHERE id % 2 = 0",
                "VACUUM (FULL) rewritten",
                "ALTER TABLE widened ALTER id TYPE bigint",
                "CLUSTER clustered USING clustered_body",
                "VACUUM (FREEZE) visible",
                "DELETE FROM thinned WHERE id % 3 = 0",
                "VACUUM thinned",
                "ALTER TABLE moved SET TABLESPACE inside",
                "DELETE FROM settled WHERE id > 100",
                "VACUUM settled",
                "INSERT INTO forgotten SELECT 1, 'x' FROM generate_series(1, 3000)",
                "UPDATE long_values SET body = upper(body) WHERE id < 10",
                "INSERT INTO found SELECT -id, words, point(id, id), body FROM found",
                "DELETE FROM found WHERE id % 5 = 0",
                "SELECT nextval('counted') FROM generate_series(1, 100)",
                "REFRESH MATERIALIZED VIEW counts",
                "SELECT lo_put(40001, 5000, 'changed'), lo_unlink(40002)",
                "SELECT lo_from_bytea(50000, 'new')",
                f"CREATE TABLE brand_new AS {_ROWS}",
                "CREATE INDEX brand_new_id ON brand_new (id)",
                "REINDEX INDEX grown_pkey",
                "DROP DATABASE doomed",
                _DOOMED,
                "CREATE DATABASE logged STRATEGY = wal_log",
            ),
            "logged": (f"CREATE TABLE inside AS {_ROWS}",),
        },
    ),
    Stage("nothing", {}),
    Stage(
        "blocks come back where a link cut some off",
        {"postgres": ("VACUUM visible",)},
        leaves_unused_blocks=True,
    ),
    Stage(
        "changes of what had changed",
        {
            "postgres": (
                "UPDATE grown SET body = 'first page' WHERE id < 20",
                "DELETE FROM grown WHERE id > 19000",
                "VACUUM grown",
                f"CREATE TABLE dropped AS {_ROWS}",
                f"INSERT INTO emptied {_ROWS}",
                "DELETE FROM rewritten WHERE id > 100",
                "VACUUM (FULL) rewritten",
                "DELETE FROM visible WHERE id BETWEEN 1000 AND 1100",
                "INSERT INTO thinned SELECT n, md5(n::text) FROM generate_series(1, 3000) n",
                "VACUUM (FREEZE) thinned",
                "UPDATE found SET words = words || 99 WHERE id % 10 = 1",
                "VACUUM found",
                "SELECT brin_summarize_new_values('found_brin')",
                "DROP INDEX brand_new_id",
                "TRUNCATE brand_new",
                f"INSERT INTO brand_new {_ROWS}",
                "SELECT setval('counted', 5)",
                "SELECT lo_unlink(50000)",
                "ALTER TABLE moved SET TABLESPACE outside",
                "ALTER TABLE forgotten SET LOGGED",
                "ALTER TABLE emptied SET UNLOGGED",
            ),
        },
    ),
    Stage(
        "a database of the same name, OID and file names",
        {
            "mould": ("UPDATE cast_in SET body = 'another' WHERE id % 2 = 0", "VACUUM cast_in"),
            "postgres": ("DROP DATABASE doomed", _DOOMED, "DROP DATABASE logged"),
        },
    ),
    Stage(
        "tablespaces come and go",
        {
            "postgres": (
                "ALTER TABLE moved SET TABLESPACE pg_default",
                "DROP TABLESPACE outside",
                "CREATE TABLESPACE later LOCATION ''",
                "ALTER TABLE grown SET TABLESPACE later",
                "CREATE DATABASE elsewhere TABLESPACE later",
                "UPDATE settled SET body = 'moved on'",
            ),
            "elsewhere": (f"CREATE TABLE there AS {_ROWS}",),
        },
    ),
    Stage(
        "a little of everything",
        {
            "postgres": (
                "UPDATE grown SET body = 'last' WHERE id = 4711",
                f"UPDATE {REGROWN} SET body = 'last' WHERE id = 1",  # noqa: S608 - as above
                "UPDATE found SET body = 'last' WHERE id = 1",
                "DELETE FROM settled WHERE id = 1",
                "DELETE FROM visible",
                "VACUUM",
                "ANALYZE",
            ),
        },
    ),
)


def make_tablespaces(server: PostgresServer, place: Path) -> None:
    """`outside` the data directory, below `place`, and `inside` it."""
    location = place / "outside"
    location.mkdir(0o700)
    hand_over(location, server_account())
    with server.connect() as connection:
        statement = sql.SQL("CREATE TABLESPACE outside LOCATION {}").format(str(location))
        connection.execute(statement)
        connection.execute("CREATE TABLESPACE inside LOCATION ''")


def perform(server: PostgresServer, stage: Stage) -> None:
    for database, statements in stage.statements.items():
        with server.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())
    if stage.leaves_unused_blocks:
        with server.connect() as connection:
            lengthen(connection, REGROWN)


def lengthen(connection: psycopg.Connection, table: str) -> None:
    """Copy rows until the file ends with blocks that PostgreSQL added and did not use.

    It adds several at once, without a record in the WAL (RelationAddBlocks, hio.c).
    """
    copy = sql.SQL("COPY {} (id, body) FROM STDIN").format(sql.Identifier(table))
    for start in range(100_000, 109_000, 3000):
        with connection.cursor().copy(copy) as rows:
            for number in range(start, start + 3000):
                rows.write_row((number, "x" * 100))
        if unused_blocks(connection, table):
            return
    raise AssertionError(f"{table} has no unused blocks")


def unused_blocks(connection: psycopg.Connection, table: str) -> int:
    """How many at the end of the table hold no row."""
    query = sql.SQL(
        "SELECT pg_relation_size({name}) / 8192 - 1 - max((ctid::text::point)[0]) FROM {table}"
    )
    found = connection.execute(query.format(name=table, table=sql.Identifier(table))).fetchone()
    assert found
    return int(found[0])
