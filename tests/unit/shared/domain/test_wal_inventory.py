"""What the archive holds, against a model that remembers every byte."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.domain.wal_inventory import POINTS_KEPT, ArchivedWal, WalInventory, WalRange

SEGMENT = 16 << 20
BYTES = 40  # of the model's log
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
# A clock that goes backwards between position 10 and 20: positions decide, never times.
COMMITS = {lsn: NOON + timedelta(seconds=-lsn if lsn < 20 else lsn) for lsn in range(0, BYTES, 3)}
POINTS = [RestorePoint(Lsn(lsn), f"point {lsn}", NOON) for lsn in range(0, BYTES, 7)]


def archived(start: int, end: int, timeline: int = 1) -> ArchivedWal:
    """What an honest writer says of these bytes of the model's log."""
    commits = [COMMITS[lsn] for lsn in range(start, end) if lsn in COMMITS]
    first, last = (commits[0], commits[-1]) if commits else (None, None)
    points = tuple(point for point in POINTS if start <= point.lsn < end)
    return ArchivedWal(timeline, Lsn(start), Lsn(end), first, last, points, end - start + 100)


def segment(number: int, timeline: int = 1) -> ArchivedWal:
    start = Lsn(number * SEGMENT)
    at = NOON + timedelta(minutes=number)
    return ArchivedWal(timeline, start, start + SEGMENT, at, at, (), 1000)


def segments(*numbers: int) -> WalInventory:
    return WalInventory().adding(map(segment, numbers))


@st.composite
def stretches(draw: st.DrawFn) -> ArchivedWal:
    start = draw(st.integers(0, BYTES - 1))
    return archived(start, draw(st.integers(start + 1, BYTES)), draw(st.integers(1, 2)))


@given(st.lists(stretches(), max_size=12))
def test_the_ranges_are_the_bytes_that_a_model_remembers(items: list[ArchivedWal]) -> None:
    inventory = WalInventory().adding(items)
    for timeline in (1, 2):
        expected = list(model_ranges(items, timeline))
        found = inventory.of(timeline)
        assert [(one.start, one.end) for one in found] == expected
        assert [one.plain_bytes for one in found] == [end - start for start, end in expected]
        holes = [(left[1], right[0]) for left, right in pairwise(expected)]
        assert list(inventory.gaps(timeline)) == holes


@given(st.lists(stretches(), min_size=1, max_size=12))
def test_first_and_last_commit_are_those_by_position_w23(items: list[ArchivedWal]) -> None:
    for one in WalInventory().adding(items).ranges:
        whole = archived(one.start, one.end)
        assert (one.first_commit, one.last_commit) == (whole.first_commit, whole.last_commit)
        assert one.points == whole.points


@given(st.data(), st.lists(stretches(), max_size=10))
def test_order_repetition_and_portions_of_what_is_added_do_not_matter(
    data: st.DataObject, items: list[ArchivedWal]
) -> None:
    at_once = WalInventory().adding(items)
    shuffled = data.draw(st.permutations([*items, *items[::2]]))
    one_by_one = WalInventory()
    for item in shuffled:
        one_by_one = one_by_one.adding([item])
    assert one_by_one == at_once


@given(st.lists(stretches(), max_size=10))
def test_what_is_added_again_changes_nothing_not_even_the_stored_bytes(
    items: list[ArchivedWal],
) -> None:
    once = WalInventory().adding(items)
    again = once.adding(items).adding(reversed(items))
    assert again == once
    assert [one.stored_bytes for one in again.ranges] == [one.stored_bytes for one in once.ranges]


@given(st.lists(stretches(), max_size=10), st.integers(0, BYTES + 1))
def test_a_position_is_reached_when_every_byte_before_it_is_there(
    items: list[ArchivedWal], lsn: int
) -> None:
    inventory = WalInventory().adding(items)
    reached = inventory.range_at(1, Lsn(lsn))
    expected = [(start, end) for start, end in model_ranges(items, 1) if start <= lsn <= end]
    assert ([(reached.start, reached.end)] if reached else []) == expected


def test_a_whole_segment_after_its_pieces_counts_no_log_twice() -> None:
    """Blobs that do not overlap are added up; one that repeats what is known adds nothing."""
    pieces = [archived(0, 10), archived(10, 25), archived(25, 32)]
    (received,) = WalInventory().adding(pieces).ranges
    (completed,) = WalInventory((received,)).adding([archived(0, 32)]).ranges
    assert (completed.start, completed.plain_bytes) == (received.start, 32)
    assert completed.stored_bytes == sum(piece.stored_bytes for piece in pieces)


def test_w03_a_gap_is_shown_and_splits_what_the_archive_holds() -> None:
    inventory = segments(5, 7, 8)
    assert inventory.gaps(1) == ((Lsn(6 * SEGMENT), Lsn(7 * SEGMENT)),)
    assert bounds(inventory.ranges) == [(5, 6), (7, 9)]
    assert inventory.range_at(1, Lsn(6 * SEGMENT) + 1) is None


def test_w04_a_gap_that_is_filled_later_heals() -> None:
    split = segments(5, 7, 8)
    healed = split.adding([segment(6)])
    assert healed == segments(5, 6, 7, 8)
    assert healed.gaps(1) == ()
    assert bounds(healed.ranges) == [(5, 9)]
    assert (healed.ranges[0].first_commit, healed.ranges[0].last_commit) == (
        segment(5).first_commit,
        segment(8).last_commit,
    )


def test_w19_a_segment_ahead_of_the_one_before_it_is_not_archived_through() -> None:
    ahead = segments(5, 6, 8)
    through = ahead.through(1)
    assert through is not None
    assert (through.end, through.last_commit) == (Lsn(7 * SEGMENT), segment(6).last_commit)
    caught_up = ahead.adding([segment(7)]).through(1)
    assert caught_up is not None
    assert (caught_up.end, caught_up.last_commit) == (Lsn(9 * SEGMENT), segment(8).last_commit)


def test_archived_through_begins_at_the_newest_backup_not_at_an_old_gap() -> None:
    inventory = segments(1, 2, 5, 6, 9)
    backup = Lsn(5 * SEGMENT + 40)
    assert through_segment(inventory.through(1, backup)) == 7
    assert through_segment(inventory.through(1)) == 3
    assert through_segment(inventory.newest(1)) == 10
    assert inventory.through(1, Lsn(4 * SEGMENT)) is None


def test_a_range_ends_where_its_timeline_does() -> None:
    inventory = segments(3, 4).adding([segment(5, timeline=2)])
    assert inventory.timelines == (1, 2)
    assert bounds(inventory.of(1)) == [(3, 5)]
    assert bounds(inventory.of(2)) == [(5, 6)]
    assert inventory.gaps(2) == ()


def test_an_empty_archive_reaches_nothing() -> None:
    empty = WalInventory()
    assert (empty.through(1), empty.newest(1), empty.range_at(1, Lsn(0))) == (None, None, None)
    assert (empty.timelines, empty.gaps(1), empty.adding([])) == ((), (), empty)


def test_a_piece_that_ends_within_a_commit_record_knows_less_than_the_segment() -> None:
    """The record begins in the piece, but only who has all of it can tell its time."""
    piece = ArchivedWal(1, Lsn(10), Lsn(32), NOON, NOON)
    whole = ArchivedWal(1, Lsn(0), Lsn(32), NOON, NOON + timedelta(seconds=5))
    for items in ([piece, whole], [whole, piece]):
        (one,) = WalInventory().adding(items[:1]).adding(items[1:]).ranges
        assert one.last_commit == whole.last_commit


@pytest.mark.parametrize("added", [1, 7, POINTS_KEPT * 3])
def test_of_many_restore_points_the_newest_by_position_are_kept(added: int) -> None:
    """Added in portions, and their times run backwards."""
    points = [
        RestorePoint(Lsn(lsn), "deploy", NOON - timedelta(seconds=lsn))
        for lsn in range(POINTS_KEPT * 2)
    ]
    inventory = WalInventory()
    for at in range(0, len(points), added):
        portion = tuple(points[at : at + added])
        inventory = inventory.adding([ArchivedWal(1, Lsn(0), Lsn(999), points=portion)])
    assert inventory.ranges[0].points == tuple(points[-POINTS_KEPT:])


@given(st.lists(stretches(), max_size=12), st.integers(0, BYTES + 1))
def test_since_a_position_only_what_lies_below_it_is_left_out(
    items: list[ArchivedWal], start: int
) -> None:
    inventory = WalInventory().adding(items)
    cut = inventory.since({1: Lsn(start)})
    expected = [(max(one, start), end) for one, end in model_ranges(items, 1) if end > start]
    assert [(one.start, one.end) for one in cut.of(1)] == expected
    assert cut.of(2) == inventory.of(2)
    assert cut.since({1: Lsn(start)}) == cut
    before, after = (sum(one.stored_bytes for one in each.of(1)) for each in (inventory, cut))
    assert 0 <= after <= before


def model_ranges(items: Iterable[ArchivedWal], timeline: int) -> Iterable[tuple[int, int]]:
    held = {
        byte for item in items if item.timeline == timeline for byte in range(item.start, item.end)
    }
    starts = sorted(byte for byte in held if byte - 1 not in held)
    ends = sorted(byte + 1 for byte in held if byte + 1 not in held)
    return zip(starts, ends, strict=True)


def bounds(ranges: Sequence[WalRange]) -> list[tuple[int, int]]:
    """In segments."""
    return [(one.start // SEGMENT, one.end // SEGMENT) for one in ranges]


def through_segment(found: WalRange | None) -> int | None:
    return found.end // SEGMENT if found else None
