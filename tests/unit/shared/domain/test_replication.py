"""What is called safe in the second region: never anything that storage received too late."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.replication import (
    CLOCK_MARGIN,
    ArchivedPiece,
    Artefact,
    BackupCopy,
    CopyState,
    NeededWal,
    PendingBackup,
    ReplicationState,
    SeenBackup,
    failed_copies,
    is_safe,
    judge_backups,
    judge_lag,
    not_yet_safe,
    now_safe,
    wal_safe_through,
    worth_a_look,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEMO = ClusterName("demo")
HOUR = timedelta(hours=1)

seconds = st.integers(-200, 200).map(lambda number: timedelta(seconds=number))
written = st.none() | seconds.map(lambda step: NOON + step)
artefacts = st.builds(Artefact, st.uuids().map(str), written, st.none())


def pieces(count: int = 12) -> st.SearchStrategy[ArchivedPiece]:
    lsn = st.integers(0, count)
    return st.tuples(lsn, lsn, artefacts).map(
        lambda made: ArchivedPiece(Lsn(min(made[:2])), Lsn(max(made[:2]) + 1), made[2])
    )


def pending(number: int, parent: int | None = None, **more: bool) -> PendingBackup:
    below = None if parent is None else label_of(parent)
    return PendingBackup(DEMO, label_of(number), NOON + timedelta(minutes=number), below, **more)


def label_of(number: int) -> BackupLabel:
    return BackupLabel(f"20261122T{number:06d}Z-I-aaaa")


def test_a_blob_is_safe_when_last_sync_time_has_passed_it_by_more_than_the_margin() -> None:
    assert not is_safe(NOON, NOON)
    assert not is_safe(NOON, NOON + CLOCK_MARGIN)
    assert is_safe(NOON, NOON + CLOCK_MARGIN + timedelta(seconds=1))
    assert not is_safe(None, NOON)


@given(parts=st.lists(artefacts), wal=st.lists(pieces()), archived=st.booleans(), step=seconds)
def test_a_copy_is_whole_only_when_every_blob_of_it_is_safe(
    *, parts: list[Artefact], wal: list[ArchivedPiece], archived: bool, step: timedelta
) -> None:
    reached = NOON + step
    copy = BackupCopy(parts, [NeededWal(Lsn(3), Lsn(9), wal, archived)])
    whole = not not_yet_safe(copy, reached)
    covered = {
        byte
        for piece in wal
        if is_safe(piece.artefact.written, reached)
        for byte in range(piece.start, piece.end)
    }
    enough = (
        covered >= set(range(3, 9))
        if archived
        else all(is_safe(piece.artefact.written, reached) for piece in wal)
    )
    assert whole == (all(is_safe(one.written, reached) for one in parts) and enough)


@given(st.lists(pieces()), st.integers(0, 12), seconds, seconds)
def test_wal_is_safe_without_a_gap_and_ever_further(
    wal: list[ArchivedPiece], start: int, early: timedelta, late: timedelta
) -> None:
    before, after = sorted((NOON + early, NOON + late))
    through = wal_safe_through(wal, Lsn(start), before)
    assert start <= through <= wal_safe_through(wal, Lsn(start), after)
    held = [one for one in wal if is_safe(one.artefact.written, before)]
    for byte in range(start, through):
        assert any(one.start <= byte < one.end for one in held)
    assert not any(one.start <= through < one.end for one in held)


@given(st.lists(artefacts, min_size=1), seconds, st.integers(0, 300))
def test_what_is_whole_stays_whole_as_last_sync_time_goes_on(
    parts: list[Artefact], step: timedelta, later: int
) -> None:
    copy, reached = BackupCopy(parts), NOON + step
    after = not_yet_safe(copy, reached + timedelta(seconds=later))
    assert set(after) <= set(not_yet_safe(copy, reached))


@given(whole=st.lists(st.booleans(), min_size=1, max_size=6), parent_safe=st.booleans())
def test_a_chain_is_safe_up_to_its_first_link_that_is_not(
    *, whole: list[bool], parent_safe: bool
) -> None:
    chain = [
        SeenBackup(pending(number, number - 1, parent_safe=number == 0 and parent_safe), missing)
        for number, missing in enumerate(() if ok else ("index",) for ok in whole)
    ]
    expected = [*whole, False].index(False) if parent_safe else 0
    assert now_safe(reversed(chain)) == [one.backup for one in chain[:expected]]


def test_a_backup_of_which_object_replication_failed_is_not_called_safe() -> None:
    parts = [
        Artefact("index", NOON, CopyState.COMPLETE),
        Artefact("facts", NOON, CopyState.FAILED),
    ]
    copy = BackupCopy(parts)
    seen = SeenBackup(pending(0), not_yet_safe(copy, NOON + HOUR), failed_copies(copy))
    assert (seen.missing, seen.failed) == ((), ("facts",))
    assert now_safe([seen]) == []
    [finding] = judge_backups([seen.backup], [seen], HOUR, NOON)
    assert (finding.code, finding.object) == ("object-replication-failed", seen.backup.label.text)
    assert finding.evidence["blobs"] == "facts"
    assert now_safe([replace(seen, failed=())]) == [seen.backup]


def test_only_backups_that_last_sync_time_has_passed_are_worth_a_look_oldest_first() -> None:
    backups = [pending(number) for number in (9, 3, 5)]
    ready = worth_a_look(backups, NOON + timedelta(minutes=7))
    assert [one.committed_at.minute for one in ready] == [3, 5]


@pytest.mark.parametrize(
    ("state", "reached", "found"),
    [
        (ReplicationState.LIVE, NOON - timedelta(minutes=15), []),
        (ReplicationState.LIVE, NOON - timedelta(minutes=16), [NOON - timedelta(minutes=16)]),
        (ReplicationState.UNAVAILABLE, NOON - HOUR, [NOON - HOUR]),
        (ReplicationState.BOOTSTRAP, None, [NOON]),
        (None, NOON - timedelta(minutes=10), []),
        (None, None, [NOON]),
    ],
)
def test_the_secondary_is_behind_since_its_last_sync_time(
    state: ReplicationState | None, reached: datetime | None, found: list[datetime]
) -> None:
    findings = judge_lag(state, reached, timedelta(minutes=15), NOON)
    assert [one.since for one in findings] == found
    assert {one.code for one in findings} <= {"geo-behind"}


def test_backups_that_should_be_safe_by_now_are_one_finding_that_names_the_oldest() -> None:
    waiting = [pending(number) for number in (30, 10, 20)]
    seen = [SeenBackup(waiting[1], ("a", "b", "c", "d"))]
    now = NOON + HOUR + timedelta(minutes=25)
    [finding] = judge_backups(waiting, seen, HOUR, now)
    assert finding.code == "geo-overdue"
    assert finding.since == NOON + HOUR + timedelta(minutes=10)
    assert finding.evidence == {
        "count": "2",
        "label": waiting[1].label.text,
        "missing": "a, b, c",
    }
    assert judge_backups(waiting, seen, 2 * HOUR, now) == []
