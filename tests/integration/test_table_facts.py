"""Facts and row counts taken from real servers, one of each major version that is installed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import psycopg
import pytest

from local import postgres_programs
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.drill import SnapshotFacts, TableFacts, TableState
from shared.errors import PgkeepError, PostgresGone, TableNameInvalid
from worker.postgres.cluster_facts import server_facts
from worker.postgres.configuration_facts import configuration_facts
from worker.postgres.connection import connect_sql, refined
from worker.postgres.table_facts import Connect, Reference, TableName, count_tables, table_facts

pytestmark = [pytest.mark.integration, pytest.mark.postgres]

LIMIT_S = 30
FAST = ClusterOptions(fsync=False, settings={"max_prepared_transactions": "5"})


@pytest.fixture(
    scope="module", params=postgres_programs.available_majors(), ids="postgres{}".format
)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    programs = postgres_programs.find(request.param)
    assert programs is not None
    with (
        TemporaryDirectory(prefix="pgkeep-facts-") as directory,
        PostgresServer.create(programs, Path(directory), FAST) as running,
    ):
        yield running


@pytest.fixture
def sql(server: PostgresServer) -> Iterator[psycopg.Connection]:
    """A session in a schema of its own, which is dropped again."""
    with closing(server.connect()) as connection:
        connection.execute("DROP SCHEMA IF EXISTS shop CASCADE")
        connection.execute("CREATE SCHEMA shop")
        yield connection


def connector(server: PostgresServer) -> Connect:
    return cast("Connect", lambda database: connect_sql(server.dsn(database)))


def take(
    server: PostgresServer, *tables: str, since: tuple[SnapshotFacts, ...] = ()
) -> tuple[SnapshotFacts, ...]:
    names = [TableName.parse(table, default_database="postgres") for table in tables]
    return table_facts(connector(server), names, since=since, statement_timeout_s=LIMIT_S)


def one(server: PostgresServer, table: str) -> TableFacts:
    return take(server, table)[0].tables[0]


def test_a_quiet_table_is_settled_through_and_through(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT generate_series(1, 100) AS id")

    (start,) = take(server, "shop.t")
    (end,) = take(server, "shop.t", since=(start,))

    for facts in (start, end):
        assert facts.database == "postgres"
        assert (facts.tables[0].rows, facts.tables[0].settled, facts.tables[0].ahead) == (
            100,
        ) * 2 + (0,)
        assert facts.lsn_before <= facts.lsn_after
        assert facts.xmin <= facts.xmax <= facts.horizon
    assert start.tables == end.tables


def test_later_changes_leave_the_settled_rows_that_they_do_not_touch(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT generate_series(1, 100) AS id")
    start = take(server, "shop.t")
    sql.execute("INSERT INTO shop.t SELECT generate_series(101, 150)")
    sql.execute("UPDATE shop.t SET id = -id WHERE id <= 10")
    sql.execute("DELETE FROM shop.t WHERE id BETWEEN 11 AND 15")

    (end,) = take(server, "shop.t", since=start)

    assert (end.tables[0].rows, end.tables[0].settled) == (145, 85)


def test_rows_of_subtransactions_above_a_running_transaction_are_not_settled(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t (id int)")
    with closing(server.connect()) as other, other.transaction(force_rollback=True):
        (oldest,) = other.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,)
        with sql.transaction(), sql.transaction():
            sql.execute("INSERT INTO shop.t VALUES (1)")

        (facts,) = take(server, "shop.t")

    assert facts.xmin == oldest
    assert oldest in facts.in_progress
    assert (facts.tables[0].rows, facts.tables[0].settled) == (1, 0)


def test_the_horizon_lies_above_transactions_that_the_snapshot_does_not_list(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("SELECT pg_current_xact_id()")
    with closing(server.connect()) as other, other.transaction(force_rollback=True):
        (newest,) = other.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,)

        (facts,) = take(server, "pg_catalog.pg_class")

    assert facts.xmax <= newest < facts.horizon
    assert newest not in facts.in_progress


def test_taking_facts_uses_up_no_transaction_number(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT 1 AS id")
    (before,) = take(server, "shop.t")

    (after,) = take(server, "shop.t", since=(before,))

    assert after.horizon == before.horizon


def test_frozen_rows_stay_settled(server: PostgresServer, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT generate_series(1, 100) AS id")
    start = take(server, "shop.t")
    sql.execute("VACUUM (FREEZE, FULL) shop.t")

    (end,) = take(server, "shop.t", since=start)

    assert end.tables[0].settled == 100


def test_a_number_from_an_older_epoch_is_neither_settled_nor_young(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT generate_series(1, 7) AS id")
    (row,) = sql.execute("SELECT xmin::text::bigint FROM shop.t LIMIT 1").fetchall()
    name = TableName.parse("shop.t", default_database="postgres")

    with closing(connector(server)("postgres")) as connection:
        (ahead,) = count_tables(
            connection,
            [name],
            lambda: Reference(xmin=2**32 + row[0] - 50, horizon=2**32 + row[0] - 20),
            statement_timeout_s=LIMIT_S,
        )
        (wrapped,) = count_tables(
            connection,
            [name],
            lambda: Reference(xmin=2 * 2**32 - 10, horizon=2 * 2**32 + row[0] + 1),
            statement_timeout_s=LIMIT_S,
        )

    assert (ahead.rows, ahead.settled, ahead.ahead) == (7, 0, 7)
    assert (wrapped.rows, wrapped.settled, wrapped.ahead) == (7, 0, 0)


def test_a_partitioned_table_is_counted_leaf_by_leaf(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.p (id int) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES FROM (0) TO (10)")
    sql.execute('CREATE TABLE shop."P 2" PARTITION OF shop.p FOR VALUES FROM (10) TO (20)')
    sql.execute("INSERT INTO shop.p SELECT generate_series(5, 14)")
    leaves = sql.execute(
        """SELECT 'shop.p1'::regclass::oid, 'shop."P 2"'::regclass::oid"""
    ).fetchone()

    facts = one(server, "shop.p")

    assert (facts.rows, facts.settled) == (10, 10)
    assert facts.identity == tuple(sorted(leaves or ()))


def test_a_table_swapped_by_name_has_another_identity(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT 1 AS id")
    before = one(server, "shop.t")
    sql.execute("ALTER TABLE shop.t RENAME TO old")
    sql.execute("CREATE TABLE shop.t AS SELECT 1 AS id")

    assert one(server, "shop.t").identity != before.identity


def test_what_is_no_logged_table_is_reported_as_such(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE UNLOGGED TABLE shop.u (id int)")
    sql.execute("CREATE VIEW shop.v AS SELECT 1 AS id")

    states = {
        facts.table: facts.state for facts in take(server, "shop.u", "shop.v", "shop.x")[0].tables
    }

    assert states == {
        "postgres.shop.u": TableState.UNLOGGED,
        "postgres.shop.v": TableState.UNCOUNTED,
        "postgres.shop.x": TableState.ABSENT,
    }


def test_one_locked_table_does_not_spoil_the_others(
    server: PostgresServer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.postgres.table_facts.LOCK_TIMEOUT_S", 1)
    sql.execute("CREATE TABLE shop.locked AS SELECT 1 AS id")
    sql.execute("CREATE TABLE shop.t AS SELECT 1 AS id")
    with closing(server.connect()) as other, other.transaction(force_rollback=True):
        other.execute("LOCK TABLE shop.locked")

        locked, free = take(server, "shop.locked", "shop.t")[0].tables

    assert (locked.state, locked.problem) == (TableState.UNCOUNTED, "SQLSTATE 55P03")
    assert free.rows == 1


def test_row_security_never_hides_rows_from_a_count(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT generate_series(1, 9) AS id")
    sql.execute("ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY")
    sql.execute("DROP ROLE IF EXISTS clerk")
    sql.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk' IN ROLE pg_read_all_data")
    dsn = psycopg.conninfo.make_conninfo(server.dsn(), user="clerk", password="clerk")  # noqa: S106
    name = TableName.parse("shop.t", default_database="postgres")

    (facts,) = table_facts(lambda _: connect_sql(dsn), [name], statement_timeout_s=LIMIT_S)

    assert facts.tables[0].state is TableState.UNCOUNTED
    sql.execute("DROP ROLE clerk")


def test_databases_are_counted_each_in_its_own_snapshot(server: PostgresServer) -> None:
    facts = take(server, "pg_catalog.pg_class", "template1.pg_catalog.pg_class")

    assert [snapshot.database for snapshot in facts] == ["postgres", "template1"]
    assert all(snapshot.tables[0].state is TableState.COUNTED for snapshot in facts)


def test_a_connection_that_breaks_is_no_fact_about_a_table(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE shop.t AS SELECT 1 AS id")

    def doomed(database: str) -> psycopg.Connection:
        connection = connect_sql(server.dsn(database))
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        return connection

    names = [TableName.parse("shop.t", default_database="postgres")]
    with pytest.raises(PostgresGone):
        table_facts(doomed, names, statement_timeout_s=LIMIT_S)


def test_the_server_tells_what_a_restore_host_must_match(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE UNLOGGED TABLE shop.u (id int)")

    facts = server_facts(connector(server), "postgres")

    assert facts.version_num // 10_000 == server.major
    assert facts.system_identifier.isdigit()
    assert (facts.timeline, facts.in_recovery, facts.data_checksums) == (1, False, True)
    assert (facts.block_size, facts.wal_segment_size) == (8192, 16 << 20)
    assert facts.bootstrap_superuser == "postgres"
    assert facts.preload_libraries == ()
    assert facts.settings["max_prepared_transactions"] == "5"
    database = next(item for item in facts.databases if item.name == "postgres")
    assert [extension.split()[0] for extension in database.extensions] == ["plpgsql"]
    assert database.unlogged_tables == 1
    assert facts.configuration.settings["max_prepared_transactions"] == "5"
    assert facts.configuration.files["data_directory"]
    assert facts.configuration.outside == ()
    assert any("replication" in rule for rule in facts.configuration.hba)


def test_a_database_dropped_after_it_was_listed_is_left_out(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE DATABASE doomed")
    dropped = []

    def drop_first(database: str) -> psycopg.Connection:
        if database == "doomed":
            sql.execute("DROP DATABASE doomed")
            dropped.append(database)
        return connect_sql(server.dsn(database))

    facts = server_facts(cast("Connect", drop_first), "postgres")

    assert dropped == ["doomed"]
    assert "doomed" not in {item.name for item in facts.databases}


def test_a_database_that_is_there_but_does_not_answer_is_an_error(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE DATABASE closed CONNECTION LIMIT 0")
    sql.execute("CREATE ROLE visitor LOGIN IN ROLE pg_monitor")

    def as_visitor(database: str) -> psycopg.Connection:
        user = "visitor" if database == "closed" else "postgres"
        return connect_sql(refined(server.dsn(database), user=user))

    with pytest.raises(PgkeepError, match="closed"):
        server_facts(cast("Connect", as_visitor), "postgres")
    sql.execute("DROP DATABASE closed")
    sql.execute("DROP ROLE visitor")


def test_a_role_without_rights_still_tells_what_it_may_see(
    server: PostgresServer, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE ROLE nobody_special LOGIN")
    with closing(connect_sql(server.dsn("postgres"))) as connection:
        connection.execute("SET ROLE nobody_special")
        facts = configuration_facts(connection)
    sql.execute("DROP ROLE nobody_special")

    assert facts.settings["max_prepared_transactions"] == "5"
    assert facts.files == {}
    assert facts.hba == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shop.orders", TableName("app", "shop", "orders")),
        ("Sales.Shop.Orders", TableName("sales", "shop", "orders")),
        ('"My.db"."a""b"."T 1"', TableName("My.db", 'a"b', "T 1")),
    ],
)
def test_table_names_read_as_in_sql(text: str, name: TableName) -> None:
    assert TableName.parse(text, default_database="app") == name
    assert TableName.parse(str(name), default_database="") == name


@pytest.mark.parametrize("text", ["orders", "a.b.c.d", "", "a..b", 'a."b', "a.b c"])
def test_other_table_names_are_refused(text: str) -> None:
    with pytest.raises(TableNameInvalid):
        TableName.parse(text, default_database="app")
