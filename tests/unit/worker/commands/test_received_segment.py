"""However the bytes of a segment arrive, what goes into the archive is the segment."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, WalPiece
from worker.commands import received_segment
from worker.commands.received_segment import DurableEnd, Portion, Stretch, check
from worker.commands.wal_uploads import puts_at_once
from worker.postgres.wal_page import WalSegmentInvalid

MIB = 1 << 20
CONTENT = bytes(range(256)) * (2 * MIB // 256)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 1 << 18), max_size=20))
def test_a_segment_is_whole_and_its_tails_touch_however_it_comes(sizes: list[int]) -> None:
    stretch, rest, tails = Stretch(1, Lsn(5 * MIB), MIB), memoryview(CONTENT), []
    for now, size in enumerate(sizes):
        left = stretch.take(rest[:size], float(now))
        rest = rest[size - len(left) :]
        if stretch.full:
            break
        tails.append(stretch.tail())
        assert not stretch.waiting_since
    assert stretch.take(rest, 99) == CONTENT[MIB:]
    whole = stretch.all()
    assert str(whole.item) == "000000010000000000000005"
    assert whole.content == CONTENT[:MIB]
    assert (whole.start, whole.end) == (5 * MIB, 6 * MIB)
    assert all(one.end == other.start for one, other in pairwise(tails))
    for tail in tails:
        assert isinstance(tail.item, WalPiece)
        assert tail.content == CONTENT[tail.item.start : tail.item.stop]
        assert tail.start == 5 * MIB + tail.item.start


def test_the_oldest_byte_that_waits_says_how_long() -> None:
    stretch = Stretch(1, Lsn(0x1000000), MIB)
    stretch.take(memoryview(b"one"), 10)
    stretch.take(memoryview(b"two"), 20)
    assert stretch.waiting_since == 10
    assert bytes(stretch.tail().content) == b"onetwo"
    stretch.take(memoryview(b"three"), 30)
    assert stretch.waiting_since == 30
    assert str(stretch.tail().item) == "000000010000000000000010.00000006-0000000B.partial"


def test_a_portion_does_not_change_while_the_segment_grows() -> None:
    stretch = Stretch(1, Lsn(0), MIB)
    stretch.take(memoryview(b"stored"), 0)
    tail = stretch.tail()
    stretch.take(memoryview(b" later"), 0)
    assert bytes(tail.content) == b"stored"
    assert tail.content.readonly


def test_a_segment_above_the_limit_goes_in_pieces_cut_at_its_multiples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received_segment, "PIECE_MAX", MIB)
    names, start, rest = [], Lsn(6 * MIB), memoryview(CONTENT)
    while rest:
        stretch = Stretch(3, start, 2 * MIB)
        rest = stretch.take(rest, 0)
        assert stretch.full
        names.append(str(stretch.all().item))
        assert stretch.all().content == CONTENT[start - 6 * MIB :][:MIB]
        start = stretch.end
    assert names == [
        "000000030000000000000003.00000000-00100000.partial",
        "000000030000000000000003.00100000-00200000.partial",
    ]
    second = Stretch(3, Lsn(7 * MIB), 2 * MIB)
    second.take(memoryview(b"tail"), 0)
    assert str(second.tail().item) == "000000030000000000000003.00100000-00100004.partial"


def test_only_the_beginning_of_a_segment_can_be_checked_and_is() -> None:
    item = WalFileName.parse("000000010000000000000005")
    junk = memoryview(bytes(MIB))
    for begins in (item, WalPiece.of(item, 0, MIB)):
        with pytest.raises(WalSegmentInvalid):
            check(Portion(begins, Lsn(5 * MIB), Lsn(5 * MIB), junk), 42, MIB)
    later = WalPiece.of(item, 8, MIB)
    check(Portion(later, Lsn(5 * MIB + 8), Lsn(5 * MIB), junk), 42, MIB)


@given(st.permutations(range(6)), st.integers(0, 5))
def test_durable_is_what_has_no_hole_before_it_whatever_came_first(
    order: list[int], missing: int
) -> None:
    """W19."""
    durable, stored = DurableEnd(Lsn(100)), set()
    for number in order:
        if number != missing:
            durable.add(Lsn(100 + 10 * number), Lsn(110 + 10 * number))
            stored.add(number)
        reached = next(n for n in range(7) if n not in stored)
        assert durable.lsn == 100 + 10 * reached


def test_the_newest_commit_is_of_what_is_durable() -> None:
    early, late = (datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2))
    durable = DurableEnd(Lsn(0))
    durable.add(Lsn(20), Lsn(30), late)
    assert (durable.lsn, durable.last_commit) == (0, None)
    durable.add(Lsn(0), Lsn(15), early)
    assert (durable.lsn, durable.last_commit) == (15, early)
    durable.add(Lsn(15), Lsn(20))
    assert (durable.lsn, durable.last_commit) == (30, late)
    durable.add(Lsn(0), Lsn(20), early)
    assert (durable.lsn, durable.last_commit) == (30, late)


@pytest.mark.parametrize(
    ("parallel", "segment_size", "at_once"),
    [
        (4, MIB, 4),
        (4, 16 * MIB, 4),
        (4, 32 * MIB, 2),
        (4, 64 * MIB, 1),
        (4, 1024 * MIB, 1),
        (16, 1024 * MIB, 4),
        (1, 64 * MIB, 1),
    ],
)
def test_larger_segments_go_out_fewer_at_a_time(
    parallel: int, segment_size: int, at_once: int
) -> None:
    assert puts_at_once(parallel, segment_size) == at_once
