"""Whether a copy is of the instant that was asked for, judged by what was replayed last."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.lsn import Lsn
from shared.domain.recovery_plan import BackupCandidate, RecoveryPlan, RecoveryWindow, WalPart
from shared.domain.recovery_target import RecoveryTarget, ToLatest, ToTime
from worker.commands.instant_checks import check_target, judge_heartbeats
from worker.commands.replay import Replayed
from worker.postgres.heartbeat import Heartbeats
from worker.postgres.replay_progress import Outcome

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEFORE, AFTER = NOON - timedelta(seconds=1), NOON + timedelta(seconds=1)
END = Lsn.parse("0/5000000")


def plan(target: RecoveryTarget, *, last: datetime | None = NOON) -> RecoveryPlan:
    backup = BackupCandidate(
        label="20261122T110000Z-F-aaaa",
        timeline=1,
        start_lsn=Lsn.parse("0/2000028"),
        stop_lsn=Lsn.parse("0/2000120"),
        finished_at=NOON - timedelta(hours=1),
        segment_size=16 << 20,
        wal_included=True,
        next_xid=742,
        stored_bytes=1,
        plain_bytes=1,
        suspect=False,
    )
    path = (WalPart(1, backup.start_lsn, None),)
    window = RecoveryWindow(1, backup.stop_lsn, backup.finished_at, END, last, (backup.label,))
    return RecoveryPlan(backup, target, 1, path, (), 1, 1, (), (), window)


def replayed(last: datetime | None) -> Replayed:
    return Replayed(Outcome.OPEN, END, last, 1, None, 0.1, 0.2)


@pytest.mark.parametrize(
    ("target", "last", "outcome"),
    [
        (ToTime(NOON), NOON, "passed"),
        (ToTime(NOON), BEFORE, "passed"),
        (ToTime(NOON), None, "passed"),
        (ToTime(NOON), AFTER, "failed"),
        (ToLatest(), NOON, "passed"),
        (ToLatest(), AFTER, "passed"),
        (ToLatest(), BEFORE, "failed"),
        (ToLatest(), None, "failed"),
    ],
)
def test_a_copy_of_another_instant_fails(
    target: RecoveryTarget, last: datetime | None, outcome: str
) -> None:
    assert check_target(plan(target), replayed(last)).outcome == outcome


def test_of_an_archive_without_commits_nothing_can_be_missing() -> None:
    assert check_target(plan(ToLatest(), last=None), replayed(None)).outcome == "passed"


@pytest.mark.parametrize(
    ("newest", "missing", "outcome"),
    [
        (BEFORE, 0, "passed"),
        (BEFORE, None, "passed"),
        (BEFORE, 32, "passed"),
        (BEFORE, 33, "failed"),
        (AFTER, 0, "failed"),
    ],
)
def test_v10_missing_heartbeats_fail_but_for_numbers_that_a_crash_skips(
    newest: datetime, missing: int | None, outcome: str
) -> None:
    found = Heartbeats(newest, 100, missing)
    check = judge_heartbeats(found, plan(ToTime(NOON)), 0.1)
    assert check.outcome == outcome
    assert ("missing" in check.detail) is bool(missing)
