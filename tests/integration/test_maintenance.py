"""Index maintenance on real servers: what is found, what is done, and what is left for later."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from local.postgres_server import PostgresServer
from shared.errors import PgkeepError, SettingsInvalid
from shared.settings import ClusterSettings, Maintenance
from tests.harness.deadline import wait_until
from tests.harness.worker_services import Site
from worker.commands.maintenance import (
    MaintenanceOutcome,
    MaintenanceRequest,
    maintain,
    plan_tasks,
)
from worker.postgres.upkeep_commands import UpkeepCommand
from worker.postgres.upkeep_facts import IndexFacts, StatisticsFacts, indexes, old_statistics

pytestmark = [pytest.mark.integration, pytest.mark.postgres]
HOUR = timedelta(hours=1)


@pytest.fixture
def sql(source_cluster: PostgresServer) -> Iterator[psycopg.Connection]:
    """A database of its own, so that other tests' tables are nobody's business here."""
    with closing(source_cluster.connect()) as superuser:
        superuser.execute("DROP DATABASE IF EXISTS upkeep WITH (FORCE)")
        superuser.execute("CREATE DATABASE upkeep")
        with closing(psycopg.connect(source_cluster.dsn("upkeep"), autocommit=True)) as connection:
            yield connection
        superuser.execute("DROP DATABASE upkeep WITH (FORCE)")


def cluster(server: PostgresServer, **wanted: object) -> ClusterSettings:
    values = {"dsn": server.dsn("postgres"), "least_bytes": 100_000, **wanted}
    return ClusterSettings(name="demo", dsn="host=nowhere user=b", maintenance=values)


def run(
    site: Site, settings: ClusterSettings, room: timedelta = HOUR, *, dry_run: bool = False
) -> MaintenanceOutcome:
    services = site.services()
    until = services.clocks.now() + room
    return maintain(services, settings, MaintenanceRequest(until=until, dry_run=dry_run))


def ours(outcome: MaintenanceOutcome, what: str = "done") -> list[tuple[str, str]]:
    return [
        (one.task.command.value, str(one.task.subject))
        for one in getattr(outcome, what)
        if one.task.subject.database == "upkeep"
    ]


def bloated_table(sql: psycopg.Connection) -> None:
    """`shrunk` keeps one row in twenty, spread over all pages; `tight` has nothing to give."""
    sql.execute("CREATE TABLE shrunk (id int PRIMARY KEY, t text)")
    sql.execute("CREATE TABLE tight (id int PRIMARY KEY)")
    sql.execute("INSERT INTO shrunk SELECT g, 'x' FROM generate_series(1, 60000) g")
    sql.execute("INSERT INTO tight SELECT g FROM generate_series(1, 60000) g")
    sql.execute("DELETE FROM shrunk WHERE id % 20 <> 0")
    sql.execute("SELECT pg_stat_force_next_flush()")  # so that ANALYZE forgets these changes
    sql.execute("VACUUM (ANALYZE) shrunk, tight")


def test_the_estimate_is_near_what_a_rebuild_gives(sql: psycopg.Connection) -> None:
    bloated_table(sql)
    sql.execute("CREATE INDEX odd ON shrunk (lower(t))")
    sql.execute("CREATE INDEX nulls ON tight ((id), id) WHERE id > 5")
    found = {one.index: one for one in indexes(sql)}
    before, tight = found["shrunk_pkey"], found["tight_pkey"]

    sql.execute("REINDEX INDEX shrunk_pkey")
    rebuilt = next(one for one in indexes(sql) if one.index == "shrunk_pkey").bytes

    assert before.bloat_ratio > 0.9
    assert before.needed_bytes is not None
    assert abs(before.needed_bytes - rebuilt) <= 0.15 * rebuilt + 2 * 8192
    assert tight.bloat_ratio < 0.1
    assert found["odd"].needed_bytes is None
    assert found["nulls"].needed_bytes is None


def test_the_window_rebuilds_what_is_worth_it_and_renews_old_statistics(
    source_cluster: PostgresServer, sql: psycopg.Connection, site: Site
) -> None:
    bloated_table(sql)
    sql.execute("CREATE TABLE fresh AS SELECT g AS id FROM generate_series(1, 5000) g")
    wait_until(
        lambda: any(one.table == "fresh" for one in old_statistics(sql)), 20, "counters arrive"
    )
    settings = cluster(source_cluster)

    planned = run(site, settings, dry_run=True)
    size = next(one for one in indexes(sql) if one.index == "shrunk_pkey").bytes
    outcome = run(site, settings)

    assert ours(planned, "left") == ours(outcome)
    assert ours(outcome) == [
        ("rebuild", "upkeep.public.shrunk_pkey"),
        ("analyze", "upkeep.public.fresh"),
    ]
    assert outcome.failed == []
    rebuilt = next(one for one in outcome.done if str(one.task.subject).endswith("shrunk_pkey"))
    assert rebuilt.after is not None
    assert rebuilt.after < size / 5
    assert outcome.freed_bytes >= size - rebuilt.after
    assert ours(run(site, settings)) == []


def test_an_invalid_index_is_rebuilt_and_its_leftovers_dropped(
    source_cluster: PostgresServer, sql: psycopg.Connection, site: Site
) -> None:
    sql.execute("CREATE TABLE twice (id int)")
    sql.execute("INSERT INTO twice VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("CREATE UNIQUE INDEX CONCURRENTLY once ON twice (id)")

    failing = run(site, cluster(source_cluster))
    [failed] = [one for one in failing.failed if str(one.task.subject) == "upkeep.public.once"]
    left_after_failure = [one.index for one in indexes(sql)]
    sql.execute("DELETE FROM twice WHERE ctid = '(0,1)'")
    sql.execute("CREATE INDEX twice_ccnew ON twice (id)")
    sql.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'twice_ccnew'::regclass")
    mended = run(site, cluster(source_cluster))

    assert failed.problem is not None
    assert "23505" in failed.problem
    assert left_after_failure == ["once"]
    assert ours(mended)[:2] == [
        ("drop", "upkeep.public.twice_ccnew"),
        ("rebuild", "upkeep.public.once"),
    ]
    assert [(one.index, one.valid) for one in indexes(sql)] == [("once", True)]


def test_what_would_outlast_the_window_is_left_with_the_reason(
    source_cluster: PostgresServer, sql: psycopg.Connection, site: Site
) -> None:
    bloated_table(sql)
    outcome = run(site, cluster(source_cluster), timedelta(seconds=1))
    assert outcome.done == outcome.failed == []
    [left] = [one for one in outcome.left if str(one.task.subject).endswith("shrunk_pkey")]
    assert left.problem is not None
    assert "too long for the window" in left.problem


def test_a_locked_table_is_given_up_and_leaves_nothing_behind(
    source_cluster: PostgresServer,
    sql: psycopg.Connection,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.postgres.upkeep_commands.LOCK_TIMEOUT", timedelta(seconds=1))
    bloated_table(sql)
    with closing(psycopg.connect(source_cluster.dsn("upkeep"))) as other:
        other.execute("LOCK TABLE shrunk IN SHARE MODE")
        outcome = run(site, cluster(source_cluster, analyze=False))
        other.rollback()

    [failed] = [one for one in outcome.failed if str(one.task.subject).endswith("shrunk_pkey")]
    assert failed.problem is not None
    assert "55P03" in failed.problem
    run(site, cluster(source_cluster))
    assert {one.index for one in indexes(sql)} == {"shrunk_pkey", "tight_pkey"}


def test_indexes_of_others_and_odd_names_are_minded(
    source_cluster: PostgresServer, sql: psycopg.Connection, site: Site
) -> None:
    sql.execute('CREATE SCHEMA "We ird"; CREATE TABLE "We ird"."T;b" (id int)')
    sql.execute('INSERT INTO "We ird"."T;b" SELECT g FROM generate_series(1, 60000) g')
    sql.execute('CREATE INDEX "i""x" ON "We ird"."T;b" (id)')
    sql.execute('DELETE FROM "We ird"."T;b" WHERE id % 20 <> 0; ')
    sql.execute('VACUUM (ANALYZE) "We ird"."T;b"')
    sql.execute("DROP ROLE IF EXISTS keeper")
    sql.execute("CREATE ROLE keeper LOGIN PASSWORD 'x'")
    dsn = f"{source_cluster.dsn('postgres')} user=keeper password=x"

    nothing = run(site, cluster(source_cluster, dsn=dsn))
    outcome = run(site, cluster(source_cluster))
    sql.execute("DROP ROLE keeper")

    assert ours(nothing) == ours(nothing, "failed") == []
    assert ours(outcome) == [("rebuild", 'upkeep.We ird.i"x')]


def test_without_a_dsn_or_with_a_wrong_one_it_says_so(site: Site, tmp_path: Path) -> None:
    without = ClusterSettings(name="demo", dsn="host=nowhere user=b")
    with pytest.raises(SettingsInvalid, match="maintenance"):
        run(site, without)
    wrong = without.model_copy(update={"maintenance": Maintenance(dsn=f"host={tmp_path} user=b")})
    with pytest.raises(PgkeepError):
        run(site, wrong)


def test_the_greatest_gain_comes_first() -> None:
    index = IndexFacts("d", "s", "i", 100 << 20, valid=True, leftover=False, needed_bytes=50 << 20)
    table = StatisticsFacts("d", "s", "t", 10, rows=100, changed=50)
    found = [
        replace(index, index="small_gain", needed_bytes=69 << 20),
        replace(index, index="great_gain", needed_bytes=1 << 20),
        replace(index, index="too_small", bytes=100, needed_bytes=1),
        replace(index, index="tight", needed_bytes=99 << 20),
        replace(index, index="unknown", needed_bytes=None),
        replace(index, index="broken", valid=False),
        replace(index, index="i_ccnew1", valid=False, leftover=True),
    ]
    statistics = [table, replace(table, table="older", changed=500)]

    tasks = plan_tasks(found, statistics, Maintenance())

    assert [(task.command, str(task.subject).rpartition(".")[2]) for task in tasks] == [
        (UpkeepCommand.DROP, "i_ccnew1"),
        (UpkeepCommand.REBUILD, "broken"),
        (UpkeepCommand.REBUILD, "great_gain"),
        (UpkeepCommand.REBUILD, "small_gain"),
        (UpkeepCommand.ANALYZE, "older"),
        (UpkeepCommand.ANALYZE, "t"),
    ]
    assert len(plan_tasks(found, statistics, Maintenance(analyze=False))) == 4
