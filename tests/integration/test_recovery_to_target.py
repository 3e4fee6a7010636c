"""`pgkeep restore --to-…`: planned before a byte is written, replayed, and never ended early."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.postgres_server import PostgresServer, StopMode
from local.unprivileged import server_account
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.recovery_plan import TargetUnreachable
from shared.domain.recovery_target import (
    RecoveryTarget,
    RecoveryTargetInvalid,
    TargetAction,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
)
from shared.errors import Corrupt
from tests.harness.archived_history import (
    COMMITS,
    POINT,
    History,
    UnreadableBlob,
    archived_history,
)
from tests.harness.corrupt import flip_bit
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import DEFAULT_MAJOR
from tests.harness.worker_services import CLUSTER, Site
from worker.commands import printed_recovery
from worker.commands.recover import RecoveryOutcome, recover
from worker.commands.recovery import RecoveryRequest
from worker.commands.restore import restore
from worker.commands.wal_server import serve_fetches
from worker.keys.generate import KeySet
from worker.postgres.programs import account_named, find_programs, read_control_data
from worker.postgres.replay_progress import Outcome, TargetNotReached, WalNotRestored

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def history(key_set: KeySet) -> Iterator[History]:
    with archived_history(DEFAULT_MAJOR, key_set) as ready:
        yield ready


def to_target(history: History, kind: str) -> tuple[RecoveryTarget, int]:
    """A target, and the last row of the ledger that must be there."""
    third = history.commits[3]
    targets: dict[str, tuple[RecoveryTarget, int]] = {
        "time": (ToTime(third.time), 3),
        "time, exclusive": (ToTime(third.time, inclusive=False), 2),
        "lsn": (ToLsn(third.after, inclusive=False), 3),
        "xid": (ToXid(third.xid), 3),
        "name": (ToName(POINT), 2),
        "latest": (ToLatest(), COMMITS),
        "immediate": (ToImmediate(), 0),
    }
    return targets[kind]


def recover_to(
    site: Site, target: Path, request: RecoveryRequest, **changes: Any
) -> RecoveryOutcome:
    return recover(site.services(**changes), site.request(target, recovery=request))


def control_of(history: History, data: Path) -> tuple[str, int]:
    """State and timeline in pg_control."""
    programs = find_programs(DEFAULT_MAJOR, [history.source.programs])
    control = read_control_data(programs, data, account=account_named(None))
    return control.state, control.timeline


def litter(site: Site) -> list[str]:
    """What recoveries left beside their targets; logs of failed ones are meant to be kept."""
    found = site.settings.drill.scratch.iterdir()
    return [path.name for path in found if not path.name.endswith("-logs")]


@pytest.mark.parametrize(
    "kind", ["time", "time, exclusive", "lsn", "xid", "name", "latest", "immediate"]
)
def test_r19_each_kind_of_target_is_met_and_the_operator_starts_the_directory(
    history: History, place: Path, kind: str
) -> None:
    target, last = to_target(history, kind)
    data = place / "data"
    outcome = recover_to(history.site, data, RecoveryRequest(target))
    assert outcome.replayed.outcome is Outcome.OPEN
    assert outcome.timeline == 2
    assert list(outcome.restored.phases_ms) == ["plan", "keys", "fetch_apply", "replay", "open"]
    assert control_of(history, data) == ("shut down", 2)
    assert not (data / "recovery.signal").exists()
    assert "restore_command" not in (data / "postgresql.auto.conf").read_text()
    if last:
        assert outcome.replayed.last_commit == history.commits[last].time
        assert outcome.reached >= history.commits[last].after
    assert litter(history.site) == []
    server = PostgresServer(history.source.programs, place, history.source.passwords)
    try:
        server.start()
        assert server.query("SELECT n FROM ledger ORDER BY n") == [(n,) for n in range(1, last + 1)]
        assert server.query("SHOW archive_mode") == [("off",)]
    finally:
        server.stop(StopMode.IMMEDIATE)


def test_shut_down_at_the_target_the_directory_is_not_promoted(
    history: History, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third, data = history.commits[3], place / "data"
    request = RecoveryRequest(ToXid(third.xid), action=TargetAction.SHUTDOWN)
    outcome = recover_to(history.site, data, request)
    assert outcome.replayed.outcome is Outcome.SHUT_DOWN
    assert outcome.timeline == 1
    assert control_of(history, data) == ("shut down in recovery", 1)
    assert (data / "recovery.signal").exists()
    written = (data / "postgresql.auto.conf").read_text()
    assert f"{history.site.settings.wal.socket} --absent 44 --cluster {CLUSTER} fetch" in written
    assert f"recovery_target_xid = '{third.xid}'" in written
    printed_recovery.recovery_outcome(outcome, as_json=False)
    said = capsys.readouterr().out
    assert f"recovered to {outcome.reached}" in said
    assert "not promoted" in said


def test_without_recover_the_operators_own_server_replays_and_pauses_at_the_target(
    history: History, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third, data, site = history.commits[3], place / "data", history.site
    request = RecoveryRequest(ToTime(third.time), action=TargetAction.PAUSE)
    services = site.services()
    printed_recovery.restore_outcome(
        restore(services, site.request(data, recovery=request)), as_json=False
    )
    said = capsys.readouterr().out
    for expected in (f"pgkeep wal agent {CLUSTER}", f"pg_ctl -D {data} start", "It pauses there"):
        assert expected in said
    account, wal = server_account(), services.settings.wal
    server = PostgresServer(history.source.programs, place, history.source.passwords)
    with serve_fetches(
        services,
        cluster_name(CLUSTER),
        socket=wal.socket,
        spool=wal.spool,
        accounts=frozenset({account.uid} if account else ()),
    ):
        try:
            # The delay is of a source that is a lagging standby: its file came with the backup.
            server.configure({"max_connections": "60", "recovery_min_apply_delay": "1h"})
            server.start()
            wait_until(
                lambda: server.query("SELECT pg_get_wal_replay_pause_state()") == [("paused",)],
                30,
                "the replay has reached its target",
            )
            assert server.query("SELECT max(n), pg_is_in_recovery() FROM ledger") == [(3, True)]
        finally:
            server.stop(StopMode.IMMEDIATE)


def test_a_dry_run_shows_backup_timeline_segments_and_minutes_and_writes_nothing(
    history: History, place: Path
) -> None:
    site, third = history.site, history.commits[3]
    account = server_account()
    owner = ["--owner", account.name] if account else []
    words = ["restore", CLUSTER, str(place / "data"), "--to-time", third.time.isoformat(), *owner]
    done = site.pgkeep(*words, "--dry-run", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(done.stdout)
    assert plan["label"] == str(site.newest().label)
    recovery = plan["recovery"]
    assert (recovery["timeline"], len(recovery["path"])) == (1, 1)
    assert recovery["first_segment"] in history.segments
    assert recovery["last_segment"] in history.segments
    assert recovery["segments"] * (16 << 20) >= recovery["wal_bytes"] > 0
    assert plan["estimated_seconds"] > 0
    assert plan["reasons"]
    said = site.pgkeep(*words, "--dry-run")
    for expected in (
        "timeline 1 from",
        recovery["first_segment"],
        "to replay; about",
        plan["label"],
    ):
        assert expected in said.stdout, said.stdout
    assert not (place / "data").exists()


def test_r15_r16_r18_what_cannot_be_is_refused_before_a_byte_is_written(
    history: History, place: Path
) -> None:
    last, data = history.last, place / "data"
    unreachable: list[RecoveryTarget] = [
        ToTime(last.time + timedelta(hours=1)),
        ToTime(last.time - timedelta(days=2)),
        ToLsn(Lsn.parse("FF/0")),
        ToName("never made"),
    ]
    for target in unreachable:
        with pytest.raises(TargetUnreachable):
            recover_to(history.site, data, RecoveryRequest(target))
    with pytest.raises(RecoveryTargetInvalid, match="cannot pause"):
        recover_to(history.site, data, RecoveryRequest(action=TargetAction.PAUSE))
    done = history.site.pgkeep(
        "restore", CLUSTER, str(data), "--to-latest", "--immediate", "--json"
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "recovery-target-invalid"
    assert not data.exists()


def test_r17_a_transaction_that_never_was_ends_in_postgresqls_own_words(
    history: History, place: Path
) -> None:
    data = place / "data"
    with pytest.raises(TargetNotReached, match="before configured recovery target") as missed:
        recover_to(history.site, data, RecoveryRequest(ToXid(history.last.xid + 100_000)))
    assert f"{data} is kept" in missed.value.fact
    state, timeline = control_of(history, data)
    assert (state, timeline) == ("in archive recovery", 1)
    assert (data / "recovery.signal").exists()
    logs = history.site.settings.drill.scratch.glob("*-logs/server.log")
    assert any("configured recovery target" in log.read_text() for log in logs)


def test_r21_a_storage_error_stops_the_replay_and_never_looks_like_the_end_of_the_wal(
    history: History, place: Path
) -> None:
    data = place / "data"
    store = UnreadableBlob(history.site.services().store, history.blob(-1))
    with pytest.raises(WalNotRestored) as stopped:
        recover_to(history.site, data, RecoveryRequest(ToLatest()), store=store)
    assert stopped.value.retryable
    assert control_of(history, data) == ("in archive recovery", 1)
    # Storage is back, and the operator's own server goes on where the private one stopped.
    assert (data / "recovery.signal").exists()


def test_r22_a_damaged_segment_stops_the_replay_and_is_named(history: History, place: Path) -> None:
    site = history.site.copied(place / "damaged")
    blob = site.repository / str(history.blob(-1))
    damaged = flip_bit(blob.read_bytes(), blob.stat().st_size * 4)
    blob.chmod(0o600)
    blob.write_bytes(damaged)
    with pytest.raises(Corrupt, match=history.segments[-1]):
        recover_to(site, place / "data", RecoveryRequest(ToLatest()))
    assert control_of(history, place / "data") == ("in archive recovery", 1)


def test_junk_under_the_name_of_another_timelines_history_ends_no_recovery(
    history: History, place: Path
) -> None:
    """PostgreSQL asks for it when all is replayed, to find a timeline number that is free."""
    site, third = history.site.copied(place / "junk"), history.commits[3]
    junk = (site.repository / str(history.blob(0))).parents[1] / "00000002.history"
    junk.write_bytes(b"1\t0/0\tplanted")
    outcome = recover_to(site, place / "data", RecoveryRequest(ToXid(third.xid)))
    assert outcome.replayed.last_commit == third.time
    assert outcome.timeline == 3


def test_a_backup_document_that_cannot_be_believed_is_passed_over_and_said(
    history: History, place: Path
) -> None:
    site = history.site.copied(place / "forged")
    document = next(site.repository.glob("full/*/*/backup.json"))
    other = document.parent.with_name("20200101T000000Z-F-aaaa")
    other.mkdir()
    (other / "backup.json").write_bytes(document.read_bytes())
    done = site.pgkeep(
        "restore", CLUSTER, str(place / "data"), "--to-latest", "--dry-run", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reasons = json.loads(done.stdout)["reasons"]
    assert any("20200101T000000Z-F-aaaa does not count" in reason for reason in reasons)
