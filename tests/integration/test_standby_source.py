"""From which server a backup is read, with a real primary and a real standby of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from local.free_port import free_port
from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer
from shared.domain.drill import CheckOutcome
from shared.domain.lsn import Lsn
from shared.errors import FullPageWritesOff
from shared.settings import ClusterSettings
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.standby_pair import LIMIT_S, Pair, standby_pair
from tests.harness.worker_services import CLUSTER, Site
from worker.commands import backup_source
from worker.commands.backup_source import (
    BackupSourceServer,
    StandbyUnusable,
    await_start_beyond,
    choose_source,
)
from worker.commands.check import check
from worker.commands.check_result import CheckResult
from worker.commands.cluster_identity import WrongSystem
from worker.commands.printed_check import script
from worker.keys.generate import KeySet
from worker.postgres.restartpoint import await_restartpoint

pytestmark = pytest.mark.integration

NOWHERE = f"host=127.0.0.1 port={free_port()} user={BACKUP_USER} dbname=postgres"


@pytest.fixture
def pair(make_cluster: MakeCluster, key_set: KeySet, place: Path) -> Iterator[Pair]:
    with standby_pair(make_cluster, key_set, place) as made:
        yield made


def chosen(site: Site) -> BackupSourceServer:
    """With this site's settings, whichever were written last."""
    site = site.changed()
    return choose_source(site.services(), site.cluster)


def is_standby(source: BackupSourceServer, cluster: ClusterSettings) -> bool:
    assert source.cluster.dsn in {cluster.dsn, cluster.standby}
    return source.cluster.dsn == cluster.standby


def passed_over(site: Site) -> str:
    """The reason why the primary is read from; the same is the fact where it must not be."""
    source = chosen(site)
    assert not is_standby(source, site.cluster)
    assert source.cluster == site.cluster
    assert source.reason is not None
    required = site.changed(cluster={"standby_required": True})
    with pytest.raises(StandbyUnusable) as refusal:
        chosen(required)
    assert refusal.value.fact == source.reason
    return source.reason


def test_without_a_standby_in_the_settings_the_cluster_itself_is_read(site: Site) -> None:
    assert chosen(site) == BackupSourceServer(site.cluster)


def test_a_standby_is_taken_as_long_as_it_can_be_used(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_source, "REPLAY_PATIENCE_S", 0.5)
    site, standby = pair.site, pair.standby
    assert is_standby(chosen(site), site.cluster)
    assert chosen(site).reason is None
    without_primary = pair.with_settings(dsn=NOWHERE)
    assert is_standby(chosen(without_primary), without_primary.cluster)

    standby.query("SELECT pg_wal_replay_pause()")
    wait_until(
        lambda: standby.query("SELECT pg_is_wal_replay_paused()") == [(True,)], LIMIT_S, "it pauses"
    )
    assert "replay is paused at 0/" in passed_over(site)
    standby.query("SELECT pg_wal_replay_resume()")
    assert is_standby(chosen(site), site.cluster)

    _cut_off(standby)
    assert is_standby(chosen(site), site.cluster), "there is nothing that it lacks"
    pair.primary.query("INSERT INTO kept SELECT generate_series(1, 1000)")
    assert "replay stands still at 0/" in passed_over(site)

    standby.stop()
    assert "cannot connect" in passed_over(site)
    standby.start()
    standby.query("SELECT pg_promote(true, 30)")
    assert "not in recovery" in passed_over(site)


def _cut_off(standby: PostgresServer) -> None:
    """As if its slot were lost: it answers, and nothing comes any more."""
    standby.query("ALTER SYSTEM SET primary_conninfo = ''")
    standby.reload()
    wait_until(
        lambda: not standby.query("SELECT 1 FROM pg_stat_wal_receiver"), LIMIT_S, "nothing streams"
    )


def test_a_role_that_may_not_replicate_is_no_use_and_another_cluster_is_a_mistake(
    pair: Pair, source_cluster: PostgresServer
) -> None:
    pair.primary.query("CREATE ROLE reader LOGIN PASSWORD 'canary'")
    pair.catch_up()
    dsn = make_conninfo(pair.standby.dsn("postgres"), user="reader", password="canary")  # noqa: S106
    reason = passed_over(pair.with_settings(standby=dsn))
    assert "replication" in reason.lower()
    assert "canary" not in reason

    theirs = source_cluster.dsn("postgres", BACKUP_USER)
    for required in (False, True):
        stranger = pair.with_settings(standby=theirs, standby_required=required)
        with pytest.raises(WrongSystem, match="but the standby is system"):
            chosen(stranger)


def test_wal_without_full_pages_makes_no_backup_of_a_standby(pair: Pair) -> None:
    pair.primary.query("ALTER SYSTEM SET full_page_writes = off")
    pair.primary.reload()
    off = "SELECT 1 FROM pg_settings WHERE name = 'full_page_writes' AND setting = 'off'"
    wait_until(lambda: pair.primary.query(off), LIMIT_S, "it is off")
    pair.checkpoint()
    assert is_standby(chosen(pair.site), pair.site.cluster), "no restartpoint has shown it yet"
    dsn = pair.standby.dsn("postgres", BACKUP_USER)
    with pytest.raises(FullPageWritesOff):
        pair.with_settings(dsn=dsn).backup()
    assert "full_page_writes off" in passed_over(pair.site)


def test_a_backup_begins_behind_its_parent_once_a_checkpoint_is_replayed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 58. BASE_BACKUP would make the restartpoint of what is replayed, and no more."""
    monkeypatch.setattr(backup_source, "RESTARTPOINT_PATIENCE_S", 0.5)
    cluster, standby = pair.site.cluster, chosen(pair.site)
    end = pair.catch_up()
    assert await_start_beyond(cluster, BackupSourceServer(cluster), end), "of a primary"
    assert not await_start_beyond(cluster, standby, end)
    pair.primary.query("INSERT INTO kept VALUES (0)")
    pair.catch_up()
    with pair.standby.connect() as alone, pair.primary.connect() as primary:
        assert not await_restartpoint(alone, end, 0)
        assert not await_restartpoint(alone, end, 0, primary)
        pair.checkpoint()
        assert not await_restartpoint(alone, end, 0), "it has no restartpoint of it yet"
        assert await_restartpoint(alone, end, 0, primary)
        primary.close()
        alone.execute("CHECKPOINT")
        assert await_restartpoint(alone, end, 0, primary), "a primary that is gone is not needed"
        ((redo,),) = alone.execute("SELECT redo_lsn::text FROM pg_control_checkpoint()").fetchall()
        assert not await_restartpoint(alone, Lsn.parse(redo) + 1, 0)
    assert await_start_beyond(cluster, standby, end)


@pytest.mark.postgres
def test_check_looks_at_the_standby_and_at_what_incrementals_need(pair: Pair) -> None:
    def found(**cluster: object) -> dict[str, tuple[CheckOutcome, str, CheckResult]]:
        results = check(pair.with_settings(**cluster).services(), CLUSTER)
        return {
            item.name.removeprefix(f"{CLUSTER}: "): (item.outcome, item.detail, item)
            for item in results
        }

    fine = found()
    assert fine["standby"][0] is CheckOutcome.PASSED
    assert "0 bytes behind" in fine["standby"][1]
    of_standby = fine["standby's settings"]
    assert (of_standby[0], of_standby[2].lacks) == (CheckOutcome.PASSED, ())
    assert found(standby=NOWHERE)["standby"][0] is CheckOutcome.FAILED
    sources = {"incrementals", "standby's incrementals"}
    assert {fine[name][0] for name in sources} == {CheckOutcome.PASSED}
    assert sources - found(standby_required=True).keys() == {"incrementals"}
    assert not sources & found(schedule={"incremental": False}).keys()
    if pair.primary.major < 17:
        assert "full backups are taken instead" in fine["incrementals"][1]
        strict = found(incremental={"when_impossible": "fail"})["incrementals"]
        assert strict[0] is CheckOutcome.FAILED
        return
    weekly = found(schedule={"full": "0 3 1 * *", "incremental": "0 3 15 * *"})
    assert weekly["incrementals"][0] is CheckOutcome.FAILED
    assert "kept for 240h" in weekly["incrementals"][1]
    _run_what_it_says(pair.primary, weekly["incrementals"][2], CLUSTER)
    wait_until(
        lambda: (
            found(schedule={"full": "0 3 1 * *", "incremental": "0 3 15 * *"})["incrementals"][0]
            is CheckOutcome.PASSED
        ),
        LIMIT_S,
        "the statement of the hint helped",
    )
    pair.standby.query("ALTER SYSTEM SET summarize_wal = off")
    pair.standby.reload()
    wait_until(
        lambda: found()["standby's incrementals"][0] is CheckOutcome.FAILED, LIMIT_S, "it is off"
    )
    assert found()["incrementals"][0] is CheckOutcome.PASSED
    hindered = found()["standby's incrementals"][2]
    _run_what_it_says(pair.standby, hindered, f"the standby of {CLUSTER}")
    wait_until(
        lambda: found()["standby's incrementals"][0] is CheckOutcome.PASSED, LIMIT_S, "it is on"
    )


def _run_what_it_says(server: PostgresServer, result: CheckResult, named: str) -> None:
    """As its reader would."""
    assert result.server == named
    with server.connect() as connection:
        for statement in script(result.lacks):
            connection.execute(statement.encode())
