"""Which backup, timeline and WAL a recovery takes, and what is said when there is no way."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.domain.lsn import Lsn
from shared.domain.recovery_plan import (
    BackupCandidate,
    RecoveryPlan,
    TargetUnreachable,
    WalPart,
    plan_recovery,
    recovery_windows,
)
from shared.domain.recovery_target import (
    RecoveryTarget,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
)
from shared.domain.timeline import TimelineHistory
from shared.domain.wal_inventory import ArchivedWal, ListedArchive
from tests.harness.recovery_world import (
    NOON,
    SEGMENT,
    UNIT,
    UNITS,
    Line,
    Pieces,
    World,
    backup,
    lsn,
)

WHOLE: Pieces = ((0, UNITS),)
FIRST = backup(1, 1, 3)


def at(unit: int, seconds: int = 1) -> datetime:
    """By default when the record of this unit committed, on timeline 1."""
    return NOON + timedelta(seconds=10 * unit + seconds)


def whole(timeline: int, *segments: int) -> dict[tuple[int, int], Pieces]:
    return {(timeline, segment): WHOLE for segment in segments}


def world(
    files: Mapping[tuple[int, int], Pieces], *lines: Line, backups: Any = (FIRST,), **options: Any
) -> World:
    known = {line.number: line for line in (Line(1, None, 0), *lines)}
    return World(known, files, backups, **options)


def plan(place: World, target: RecoveryTarget, **options: Any) -> RecoveryPlan:
    return plan_recovery(place.backups, place.archive, target, **options)


def refused(place: World, target: RecoveryTarget, **options: Any) -> TargetUnreachable:
    with pytest.raises(TargetUnreachable) as caught:
        plan(place, target, **options)
    return caught.value


def names(*segments: tuple[int, int]) -> tuple[str, ...]:
    return tuple(f"{timeline:08X}00000000{segment:08X}" for timeline, segment in segments)


ONE = world(whole(1, 0, 1, 2, 3))  # commits at units 0 to 15
FAILOVER = world(whole(1, 0, 1) | whole(2, 1, 2), Line(2, 1, 6))
HISTORY_LOST = replace(FAILOVER, without_history=frozenset({2}))


def test_r18_a_time_equal_to_a_commit_is_reached_with_or_without_that_commit() -> None:
    for inclusive, last in ((True, 2), (False, 1)):
        found = plan(ONE, ToTime(at(7), inclusive))
        assert found.segments == names(*((1, n) for n in range(last + 1)))
        assert found.wal_bytes == (last + 1) * SEGMENT - FIRST.start_lsn
        assert found.wal_stored_bytes == (last + 1) * UNITS  # the model stores a byte for each


def test_r16_after_the_last_commit_is_refused_and_told_through_when_the_archive_goes() -> None:
    error = refused(ONE, ToTime(at(15)))
    assert "timeline 1 is archived through 0/400000, last commit 2026-11-22T12:02:31" in error.fact
    assert error.advice == "The latest before it is --to-latest."
    assert plan(ONE, ToTime(at(15), inclusive=False)).segments[-1] == names((1, 3))[0]
    assert plan(ONE, ToTime(at(15) - timedelta(microseconds=1))).window.last_commit == at(15)


def test_r15_before_the_backup_an_older_backup_is_taken_or_none() -> None:
    newer = backup(1, 5, 7)
    place = replace(ONE, backups=(FIRST, newer))
    assert plan(place, ToTime(newer.finished_at)).backup == newer
    older = plan(place, ToTime(newer.finished_at - timedelta(seconds=1)))
    assert older.backup == FIRST
    assert f"timeline 1, backup {newer.label}: ended after the target" in older.reasons
    error = refused(place, ToTime(FIRST.finished_at - timedelta(microseconds=1)))
    assert error.advice == "The earliest after it is --to-time 2026-11-22T12:00:26.000000Z."
    assert f"backups {newer.label}, {FIRST.label}: ended after the target" in error.fact
    assert "--to-lsn 0/C0000." in refused(place, ToLsn(lsn(2))).advice


def test_of_backups_that_finished_at_one_time_the_one_further_on_has_less_to_replay() -> None:
    twins = [replace(backup(1, 4, stop), finished_at=at(9)) for stop in (6, 7, 5)]
    assert plan(replace(ONE, backups=twins), ToLatest()).backup.stop_lsn == lsn(7)


def test_what_is_reached_by_position_needs_log_behind_it() -> None:
    last = lsn(16) - 1
    found = plan(ONE, ToLsn(Lsn(last)))
    assert found.segments == names((1, 0), (1, 1), (1, 2), (1, 3))
    # Behind the last record of a segment that was switched early there is nothing to stop at.
    assert "the last part may be empty" in found.warnings[0]
    assert plan(ONE, ToLsn(lsn(11))).warnings == ()
    error = refused(ONE, ToLsn(lsn(16)))
    assert "the log ends before the target: it goes through 0/400000" in error.fact
    assert error.advice == "The latest before it is --to-latest."


def test_a_backup_that_carries_its_wal_needs_only_what_follows_its_end() -> None:
    place = world(whole(1, 2, 3), backups=[backup(1, 1, 9)])
    assert plan(place, ToLatest()).segments == names((1, 2), (1, 3))
    error = refused(replace(place, backups=[backup(1, 1, 9, included=False)]), ToLatest())
    assert "it needs the WAL up to 0/240000, of which 0/40000 to 0/200000 is missing" in error.fact
    assert error.advice == "No backup reaches its own end: take a new one."


def test_what_its_backup_carries_is_not_promised_unless_the_archive_has_all_of_it() -> None:
    place = world({(1, 0): WHOLE, (1, 1): ((0, 3),), (1, 2): WHOLE}, backups=[backup(1, 1, 9)])
    assert plan(place, ToLatest()).segments == names((1, 0), (1, 2))


def test_without_wal_behind_the_backup_the_latest_is_its_end() -> None:
    for files in ({}, {(1, 0): ((0, 2),)}):
        found = plan(world(files), ToLatest())
        assert (found.segments, found.wal_bytes) == ((), 2 * UNIT)
        assert found.warnings == (
            "no WAL is archived behind the backup: this is its own end, at 0/C0000",
        )
        assert plan(world(files), ToImmediate()).warnings == ()
        error = refused(world(files), ToTime(at(9)))
        assert "no WAL is archived behind its end at 0/C0000" in error.fact


def test_w03_a_gap_splits_the_window_and_the_latest_behind_it_is_out_of_reach() -> None:
    place = world(whole(1, 0, 1, 3, 4))
    error = refused(place, ToLatest())
    assert "a gap in the archive, from 0/200000 to 0/300000" in error.fact
    assert error.advice == (
        "The latest before the gap is --to-time 2026-11-22T12:01:11.000000Z --exclusive."
    )
    error = refused(place, ToTime(at(9)))
    assert error.fact.endswith("a gap follows, from 0/200000 to 0/300000")
    assert plan(place, ToTime(at(5))).segments == names((1, 0), (1, 1))
    behind = replace(place, backups=(FIRST, backup(1, 9, 13)))
    assert refused(behind, ToTime(at(9))).advice == (
        "The latest before it is --to-time 2026-11-22T12:01:11.000000Z --exclusive. "
        "The earliest after it is --to-time 2026-11-22T12:02:06.000000Z."
    )
    assert plan(behind, ToLatest()).backup.stop_lsn == lsn(13)
    assert [
        (window.start, window.started_at, window.end, window.last_commit, window.broken)
        for window in recovery_windows(behind.backups, behind.archive)
    ] == [
        (lsn(3), FIRST.finished_at, lsn(8), at(7), True),
        (lsn(13), at(13, -4), lsn(20), at(19), False),
    ]


@pytest.mark.parametrize(
    ("pieces", "end", "missing"),
    [
        (((0, 1), (1, 3)), 7, None),
        (((0, 2), (1, 3), (0, 1)), 7, None),
        (((0, 1), (2, 4)), 5, "from 0/140000 to 0/180000"),
        (((1, 4),), 4, "from 0/100000 to 0/140000"),
    ],
)
def test_pieces_count_up_to_the_first_hole(pieces: Pieces, end: int, missing: str | None) -> None:
    place = world(whole(1, 0) | {(1, 1): pieces})
    assert plan(place, ToLsn(Lsn(lsn(end) - 1))).window.end == lsn(end)
    assert refused(place, ToLsn(lsn(end))).fact.endswith(missing or str(lsn(end)))
    if missing is None:
        assert plan(place, ToLatest()).segments == names((1, 0), (1, 1))
    else:
        assert missing in refused(place, ToLatest()).fact


def test_behind_a_partly_stored_segment_nothing_is_reached_on_its_timeline() -> None:
    place = world({(1, 0): WHOLE, (1, 1): ((0, 3),), (1, 2): WHOLE})
    error = refused(place, ToLsn(lsn(8)))
    assert "it goes through 0/1C0000; a gap follows, from 0/1C0000 to 0/200000" in error.fact


def test_w08_after_a_failover_the_latest_is_the_end_of_the_new_timeline() -> None:
    found = plan(FAILOVER, ToLatest())
    assert found.path == (WalPart(1, lsn(1), lsn(6)), WalPart(2, lsn(6), None))
    assert found.segments == names((1, 0), (2, 1), (2, 2))
    assert found.window.end == lsn(12)
    assert "timeline 2: where the newest commit is of those that reach the target" in found.reasons
    old = plan(FAILOVER, ToLatest(), timeline=1)
    assert (old.timeline, old.segments, old.warnings) == (1, names((1, 0), (1, 1)), ())
    assert not any("timeline 1," in reason for reason in plan(FAILOVER, ToTime(at(9))).reasons)


def test_a_primary_that_went_on_alone_is_told_of_but_not_followed() -> None:
    place = replace(FAILOVER, files={**FAILOVER.files, **whole(1, 2)})
    warning = (
        "timeline 1 reaches the target too, with its last commit at 2026-11-22T12:01:51.000000Z; "
        "it and timeline 2 part at 0/180000: --timeline 1 follows it"
    )
    assert (plan(place, ToLatest()).timeline, plan(place, ToLatest()).warnings) == (2, (warning,))
    assert plan(place, ToLsn(lsn(5))).warnings == ()  # before they part


def test_w09_the_history_of_a_promotion_that_failed_does_not_hijack() -> None:
    place = world(whole(1, 0, 1, 2), Line(2, 1, 6))
    found = plan(place, ToLatest())
    assert (found.timeline, found.window.end) == (1, lsn(12))
    assert found.warnings == ("timeline 2 is newer, and does not reach the target",)
    assert (
        f"timeline 2, backup {FIRST.label}: the archive has no log of timeline 2" in found.reasons
    )
    assert "no log of timeline 2" in refused(place, ToLatest(), timeline=2).fact
    # Up to where it began there is no harm in it; PostgreSQL itself would go on into timeline 1.
    assert plan(place, ToLsn(Lsn(lsn(6) - 1)), timeline=2).segments == names((1, 0), (1, 1))
    assert "through 0/180000" in refused(place, ToTime(at(5)), timeline=2).fact
    assert refused(place, ToLsn(lsn(6)), timeline=2).advice == (
        "It is reached with --to-lsn 0/180000 --timeline 1."
    )


def test_w09_a_promotion_that_archived_a_little_and_died_is_not_the_latest() -> None:
    died = world(whole(1, 0, 1, 2, 3) | whole(2, 1), Line(2, 1, 6))
    found = plan(died, ToLatest())
    assert found.timeline == 1
    assert "timeline 2 reaches the target too" in found.warnings[0]
    # Who has no commits of its own is not newer, and who lost its metadata may be.
    idle = replace(died, lines={**died.lines, 2: Line(2, 1, 6, quiet=frozenset(range(6, 16)))})
    assert plan(idle, ToLatest()).timeline == 1
    silent = {1: Line(1, None, 0, quiet=frozenset(range(6))), 2: idle.lines[2]}
    assert plan(replace(died, lines=silent), ToLatest()).timeline == 1
    untold = replace(died.archive, items=tuple(map(forgotten, died.archive.items)))
    assert plan_recovery(died.backups, untold, ToLatest()).timeline == 2


def test_trap_30_a_timeline_that_was_left_before_the_backup_ended_is_out_of_its_reach() -> None:
    place = world(whole(1, 0, 1) | whole(2, 1, 2), Line(2, 1, 6), backups=[backup(1, 2, 7)])
    assert plan(place, ToLatest()).timeline == 1
    error = refused(place, ToLatest(), timeline=2)
    assert "timeline 2 left its timeline 1 before its end" in error.fact
    assert error.advice == "It is reached with --to-latest --timeline 1."
    on_two = replace(place, backups=[backup(2, 7, 9)])
    error = refused(on_two, ToLatest(), timeline=1)
    assert "timeline 1 does not descend from its timeline 2" in error.fact


def test_of_three_generations_and_two_children_each_is_reached_from_the_root() -> None:
    family = world(
        whole(1, 0, 1, 2, 3) | whole(2, 1, 2, 3) | whole(3, 2, 3) | whole(4, 2, 3),
        Line(2, 1, 5),
        Line(3, 2, 9),
        Line(4, 1, 10),
    )
    expected = {
        1: names((1, 0), (1, 1), (1, 2), (1, 3)),
        2: names((1, 0), (2, 1), (2, 2), (2, 3)),
        3: names((1, 0), (2, 1), (3, 2), (3, 3)),
        4: names((1, 0), (1, 1), (4, 2), (4, 3)),
    }
    for timeline, segments in expected.items():
        assert plan(family, ToLatest(), timeline=timeline).segments == segments
    windows = recovery_windows(family.backups, family.archive)
    assert [window.timeline for window in windows] == [1, 2, 3, 4]
    warned = plan(family, ToLsn(lsn(11))).warnings
    assert [text.split(";")[1] for text in warned] == [
        " it and timeline 4 part at 0/140000: --timeline 3 follows it",
        " it and timeline 4 part at 0/140000: --timeline 2 follows it",
        " it and timeline 4 part at 0/280000: --timeline 1 follows it",
    ]


def test_r20_a_segment_that_only_the_next_timeline_has_serves_up_to_where_that_began() -> None:
    place = world(
        whole(1, 0) | whole(2, 1, 2), Line(2, 1, 6), Line(3, 1, 7, points={5: "x", 6: "y"})
    )
    place = replace(place, lines={**place.lines, 1: Line(1, None, 0, points={5: "here"})})
    for target in (ToLsn(lsn(5)), ToLsn(lsn(6), inclusive=False), ToName("here")):
        found = plan(place, target, timeline=1)
        assert (found.timeline, found.segments) == (2, names((1, 0), (2, 1)))
        assert found.reasons[1].startswith("timeline 2: it holds what timeline 1 lacks")
    for beyond in (ToLsn(lsn(6)), ToTime(at(5))):
        assert refused(place, beyond, timeline=1).advice.split(". ")[0].endswith("--timeline 2")
    assert plan(place, ToLatest(), timeline=1).window.end == lsn(4)


def test_a_missing_file_of_the_newer_timeline_is_not_replaced_by_the_older_one() -> None:
    """PostgreSQL would take it; what gives it WAL ends at a hole."""
    place = world(whole(1, 0, 1) | whole(2, 2), Line(2, 1, 6))
    assert plan(place, ToLsn(lsn(5))).timeline == 1
    error = refused(place, ToLsn(lsn(5)), timeline=2)
    assert error.fact.endswith("through 0/100000; a gap follows, from 0/100000 to 0/200000")


def test_suspect_backups_serve_when_named_or_when_nothing_else_does() -> None:
    doubtful = replace(backup(1, 5, 7), suspect=True)
    place = replace(ONE, backups=(FIRST, doubtful))
    warning = f"backup {doubtful.label} is suspect: the server met damaged pages when it was taken"
    assert plan(place, ToLatest()).backup == FIRST
    assert plan(place, ToLatest(), label=doubtful.label).warnings == (warning,)
    assert plan(place, ToLatest(), label=doubtful.label).window.start == FIRST.stop_lsn
    alone = replace(ONE, backups=(doubtful,))
    assert plan(alone, ToLatest()).warnings == (warning,)
    assert recovery_windows(alone.backups, alone.archive)[0].backups == (doubtful.label,)
    assert recovery_windows(place.backups, place.archive)[0].backups == (FIRST.label,)


@pytest.mark.parametrize(
    ("next_xid", "xid", "serves"),
    [
        (700, 700, True),
        (701, 700, False),
        ((3 << 32) + 700, 700, True),
        ((1 << 32) - 5, 10, True),  # the circle begins anew between them
        ((1 << 32) + 10, (1 << 32) - 5, False),
        ((3 << 32) + 700, (3 << 32) + 701, True),
        ((3 << 32) - 5, (3 << 32) + 10, True),
        ((3 << 32) + 700, (2 << 32) + 701, False),  # PostgreSQL would stop at the one of epoch 3
        ((3 << 32) + 700, (4 << 32) + 700, False),
    ],
)
def test_r19_a_transaction_must_have_begun_after_the_backup(
    next_xid: int, xid: int, *, serves: bool
) -> None:
    place = replace(ONE, backups=[replace(FIRST, next_xid=next_xid)])
    if serves:
        found = plan(place, ToXid(xid))
        assert found.segments == names((1, 0), (1, 1), (1, 2), (1, 3))
        assert "PostgreSQL ends with an error" in found.warnings[0]
    else:
        error = refused(place, ToXid(xid))
        assert f"transaction {xid} may have ended before its end" in error.fact


def test_r19_a_backup_that_does_not_know_its_transactions_must_be_named() -> None:
    place = replace(ONE, backups=[replace(FIRST, next_xid=None)])
    error = refused(place, ToXid(700))
    assert "so only --label chooses it" in error.fact
    assert error.advice.endswith(f"reached with --to-xid 700 --label {FIRST.label}.")
    assert plan(place, ToXid(700), label=FIRST.label).backup.label == FIRST.label
    nothing = world({}, backups=place.backups)
    assert "no WAL" in refused(nothing, ToXid(700), label=FIRST.label).fact


POINTS = {2: "early", 9: "it's half way", 12: "twice", 14: "twice"}
NAMED = replace(ONE, lines={1: Line(1, None, 0, points=POINTS)})


def test_r19_a_restore_point_is_found_by_its_name() -> None:
    found = plan(NAMED, ToName("it's half way"))
    assert (found.segments, found.warnings) == (names((1, 0), (1, 1), (1, 2)), ())
    twice = plan(NAMED, ToName("twice"))
    assert twice.warnings[0].startswith("PostgreSQL stops at the first restore point of this name")
    assert "0/300000" in twice.warnings[0]
    assert "0/380000" in twice.warnings[0]


def test_r19_a_name_that_is_unknown_or_within_the_backup_is_refused_with_those_that_exist() -> None:
    error = refused(NAMED, ToName("never"))
    assert "no restore point of this name follows it in the archive" in error.fact
    assert error.advice == (
        """The newest that exist are --to-name twice, --to-name 'it'"'"'s half way'."""
    )
    error = refused(NAMED, ToName("early"))
    assert "a restore point of this name, at 0/80000, lies before its end" in error.fact


def forgotten(item: ArchivedWal) -> ArchivedWal:
    return replace(item, first_commit=None, last_commit=None, points=(), told=False)


def test_lost_metadata_makes_a_warning_of_what_is_then_not_known() -> None:
    items = NAMED.archive.items
    lost = replace(NAMED.archive, items=tuple(map(forgotten, items)))
    for target in (ToTime(at(9)), ToName("never")):
        found = plan_recovery([FIRST], lost, target)
        assert "lost" in found.warnings[0]
        assert found.segments == names((1, 0), (1, 1), (1, 2), (1, 3))
    known_end = replace(lost, items=(*lost.items[:3], items[3]))
    with pytest.raises(TargetUnreachable, match="last commit 2026-11-22T12:02:31"):
        plan_recovery([FIRST], known_end, ToTime(at(15)))
    warned = plan_recovery([FIRST], known_end, ToName("twice")).warnings
    assert warned[0].startswith("some archived WAL lost its metadata")


def test_w23_a_clock_that_went_back_does_not_hide_a_later_commit() -> None:
    """Segment 2 ends an hour before it began."""
    late, early = at(11) + timedelta(hours=1), at(11)
    items = tuple(
        replace(item, first_commit=late, last_commit=early) if item.start == lsn(8) else item
        for item in ONE.archive.items
    )
    found = plan_recovery(
        [FIRST], replace(ONE.archive, items=items), ToTime(late - timedelta(1e-4))
    )
    assert found.segments[-1] == names((1, 2))[0]
    assert found.window.last_commit == at(15)


def test_the_last_commit_is_found_however_far_back_it_lies() -> None:
    quiet = replace(ONE, lines={1: Line(1, None, 0, quiet=frozenset(range(4, 16)))})
    assert plan(quiet, ToLatest()).window.last_commit == at(3)


def test_w23_a_commit_during_the_backup_that_is_later_than_the_target_rules_it_out() -> None:
    """The server's clock is ahead of the worker's: PostgreSQL would stop within the backup."""
    behind = replace(backup(1, 1, 9), finished_at=at(0))
    error = refused(replace(ONE, backups=[behind]), ToTime(at(5)))
    assert "a commit during it has a later time than the target" in error.fact


def test_what_was_named_and_does_not_exist_is_said() -> None:
    assert "there is no backup" in refused(replace(ONE, backups=()), ToLatest()).fact
    error = refused(ONE, ToLatest(), label="20261122T000000Z-F-abcd")
    assert "there is no backup 20261122T000000Z-F-abcd" in error.fact
    assert error.advice == "It is reached with --to-latest."
    error = refused(ONE, ToLatest(), timeline=9)
    assert "the archive has no timeline 9" in error.fact
    assert error.advice == "It is reached with --to-latest --timeline 1."
    assert "no history of timeline 2" in refused(HISTORY_LOST, ToLatest(), timeline=2).fact
    other = replace(ONE, backups=[replace(FIRST, segment_size=16 << 20)])
    assert (
        "its segments have 16777216 bytes, the archive's 1048576" in refused(other, ToLatest()).fact
    )


def test_a_timeline_whose_history_is_lost_is_not_passed_over_in_silence() -> None:
    """What was committed behind the promotion is in the archive, and is not recovered."""
    words = "timeline 2 is newer, and out of reach: the archive has its log, but no history"
    [warning] = plan(HISTORY_LOST, ToLatest()).warnings
    assert warning.startswith(words)
    assert words in refused(HISTORY_LOST, ToTime(at(11))).fact
    assert not plan(HISTORY_LOST, ToLatest(), timeline=1).warnings


def test_many_backups_with_one_reason_are_named_together() -> None:
    many = [backup(1, 4, stop) for stop in (5, 6, 7, 8, 9)]
    error = refused(replace(ONE, backups=many), ToTime(at(2)))
    first, last = many[0].label, many[-1].label
    assert f"backups {first} to {last}, 5 in number: ended after the target" in error.fact


def test_of_a_hundred_thousand_segments_none_is_looked_at_for_each_backup_anew() -> None:
    """Sixty backups and three timelines are refused, with a hint, for seconds of work."""
    size, count = 16 << 20, 100_000
    items = tuple(
        ArchivedWal(1, Lsn(n * size), Lsn(n * size + size), at(n), at(n)) for n in range(count)
    )
    many = [large(n * count // 60, size) for n in range(60)]
    histories = {n: TimelineHistory.parse(n, b"1\tFF/0\tx\n") for n in (2, 3)}
    archive = ListedArchive(size, items, histories)
    began = time.process_time()
    with pytest.raises(TargetUnreachable, match="60 in number"):
        plan_recovery(many, archive, ToTime(at(count)))
    assert time.process_time() - began < 5


def large(segment: int, size: int) -> BackupCandidate:
    begin = Lsn(segment * size)
    label = f"{segment:06}"
    one = replace(FIRST, label=label, start_lsn=begin, stop_lsn=begin + 5, segment_size=size)
    return replace(one, finished_at=at(segment, 0))
