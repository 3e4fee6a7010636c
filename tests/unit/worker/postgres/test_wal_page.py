"""What pgkeep reads in WAL: page headers, commit times, restore points. On WAL made by hand."""

import struct
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.domain.wal_segment import WalFileName
from shared.errors import WalFileNameInvalid
from tests.harness.wal_pages import (
    ABORT,
    ABORT_PREPARED,
    BLOCK,
    COMMIT,
    COMMIT_PREPARED,
    HAS_INFO,
    MIB,
    PREPARE,
    RM_HEAP,
    RM_XACT,
    SYSTEM,
    Record,
    WalWriter,
)
from worker.postgres import wal_page
from worker.postgres.wal_page import (
    WalContents,
    WalSegmentInvalid,
    check_segment,
    look_into,
    read_head,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
# The second one's upper half looks like the beginning of what the search looks for.
STARTS = [Lsn(16 * MIB), Lsn.parse("101/A7000000"), Lsn.parse("7000/0")]
ENDS = [COMMIT, COMMIT | HAS_INFO, ABORT, ABORT | HAS_INFO, COMMIT_PREPARED, ABORT_PREPARED]
ORIGIN, TOP_XID = b"\xfd\1\0", b"\xfc\1\0\0\0"


def a_segment(start: Lsn = STARTS[0], **changes: Any) -> bytes:
    writer = WalWriter(start, **changes)
    writer.fill(100)
    return writer.segment()


NAME = WalFileName.parse("000000010000000000000001")


def test_the_head_of_a_segment_tells_whose_it_is() -> None:
    head = read_head(a_segment(timeline=3)[:40])
    assert (head.major, head.timeline, head.page_address) == (17, 3, STARTS[0])
    assert (head.system_identifier, head.segment_size, head.block_size) == (SYSTEM, 16 * MIB, BLOCK)


@pytest.mark.parametrize("size", [MIB, 64 * MIB, 1024 * MIB])
def test_w15_a_segment_of_another_size_is_fine_and_its_beginning_is_enough(size: int) -> None:
    writer = WalWriter(Lsn(3 * size), segment_size=size)
    writer.fill(100)
    log, number = divmod(3, (1 << 32) // size)
    name = WalFileName.parse(f"00000001{log:08X}{number:08X}")
    head = check_segment(name, bytes(writer.content), system_identifier=SYSTEM, total_size=size)
    assert head.segment_size == size


def test_w05_a_tail_of_zeros_and_a_first_page_of_an_older_timeline_are_fine() -> None:
    later = replace(NAME, timeline=2)
    for content in (a_segment(), a_segment(timeline=2)):
        check_segment(later, content, system_identifier=SYSTEM, total_size=16 * MIB)


NO_SEGMENT = [
    pytest.param(bytes(16 * MIB), "begins with zeros", id="zeros"),
    pytest.param(b"", "0 bytes", id="empty"),
    pytest.param(a_segment()[:39], "39 bytes", id="cut in the header"),
    pytest.param(a_segment(magic=0xD10D), "number D10D", id="unknown version"),
    pytest.param(b"\xff" * 16 * MIB, "number FFFF", id="no WAL"),
    pytest.param(a_segment(timeline=0), "lacks the header", id="no timeline"),
    pytest.param(a_segment(segment_size=3 * MIB), "segments of 3145728", id="odd size"),
    pytest.param(a_segment()[BLOCK:] + bytes(BLOCK), "begins with zeros", id="moved"),
    pytest.param(a_segment()[:-1], "16777215 bytes", id="one byte short"),
]
ANOTHER_SEGMENT = [
    pytest.param(a_segment(system=42), "system 42", id="another system"),
    pytest.param(a_segment(Lsn(32 * MIB)), "from 0/2000000, not from 0/1000000", id="address"),
    pytest.param(a_segment(timeline=2), "timeline 2", id="a later timeline"),
]


@pytest.mark.parametrize(("content", "why"), NO_SEGMENT)
def test_w05_what_is_no_segment_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(WalSegmentInvalid, match=why):
        check_segment(NAME, content, system_identifier=SYSTEM, total_size=len(content))


@pytest.mark.parametrize(("content", "why"), ANOTHER_SEGMENT)
def test_w05_a_segment_that_is_not_the_one_of_its_name_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(WalSegmentInvalid, match=why):
        check_segment(NAME, content, system_identifier=SYSTEM, total_size=16 * MIB)


def test_w05_a_file_of_another_size_than_its_first_page_says_is_refused() -> None:
    with pytest.raises(WalSegmentInvalid, match=r"has 1048576 bytes, .* says 16777216"):
        check_segment(NAME, a_segment(), system_identifier=SYSTEM, total_size=MIB)


def test_a_history_file_is_not_checked_as_a_segment() -> None:
    name = WalFileName.parse("00000002.history")
    with pytest.raises(WalFileNameInvalid):
        check_segment(name, a_segment(), system_identifier=SYSTEM, total_size=16 * MIB)


@st.composite
def logs(draw: st.DrawFn) -> tuple[WalWriter, list[tuple[Record, datetime | RestorePoint | None]]]:
    """Some pages of WAL, and of each record what it is: an end's time, a point, or neither."""
    writer = WalWriter(draw(st.sampled_from(STARTS)))
    known: list[tuple[Record, datetime | RestorePoint | None]] = []
    for number in range(draw(st.integers(0, 40))):
        time = NOON + timedelta(seconds=number)
        parts = draw(st.sampled_from([b"", b"", ORIGIN, TOP_XID, ORIGIN + TOP_XID]))
        match draw(st.sampled_from(["end", "fill", "point", "prepare"])):
            case "end":
                end = writer.end_transaction(time, draw(st.sampled_from(ENDS)), parts=parts)
                known.append((end, time))
            case "point":
                text = draw(
                    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15)
                )
                parts = TOP_XID if TOP_XID in parts else b""
                record = writer.restore_point(text.encode(), time, parts=parts)
                known.append((record, RestorePoint(record.lsn, text, time)))
            case "prepare":
                known.append((writer.add(RM_XACT, PREPARE, struct.pack("<q", 1)), None))
            case _:
                size = draw(st.one_of(st.integers(0, 300), st.integers(7_000, 30_000)))
                known.append((writer.fill(size), None))
    return writer, known


@settings(max_examples=200, deadline=None)
@given(logs(), st.data())
def test_commits_and_restore_points_are_found_in_any_stretch_of_wal(
    log: tuple[WalWriter, list[tuple[Record, datetime | RestorePoint | None]]], data: st.DataObject
) -> None:
    writer, known = log
    pages = len(writer.content) // BLOCK
    start = data.draw(st.integers(0, pages)) * BLOCK
    stop = data.draw(st.integers(start, len(writer.content)))
    lsn = writer.start + start
    since = data.draw(st.one_of(st.none(), st.integers(start, stop).map(writer.start.__add__)))

    found = look_into(memoryview(writer.content)[start:stop], lsn, since=since)

    inside = [
        what
        for record, what in known
        if record.lsn >= (since or lsn) and record.end <= writer.start + stop
    ]
    times = [what for what in inside if isinstance(what, datetime)]
    points = tuple(what for what in inside if isinstance(what, RestorePoint))
    expected = WalContents(times[0], times[-1], points) if times else WalContents(points=points)
    assert found == expected


def with_some_of_everything() -> bytes:
    writer = WalWriter(STARTS[0], segment_size=MIB)
    for number in range(30):
        writer.end_transaction(NOON, ENDS[number % len(ENDS)])
        writer.restore_point(b"point", NOON)
        writer.fill(number * 100)
    return bytes(writer.content)


SOME = with_some_of_everything()
MUTATIONS = st.lists(
    st.tuples(st.integers(0, len(SOME) - 1), st.binary(min_size=1, max_size=40)), max_size=20
)


@settings(max_examples=300, deadline=timedelta(seconds=2))
@given(
    MUTATIONS,
    st.integers(0, len(SOME)),
    st.one_of(st.just(STARTS[0]), st.integers(0, 2**64 - 1).map(Lsn)),
)
def test_changed_bytes_are_refused_or_hold_less_but_never_break_the_reader(
    mutations: list[tuple[int, bytes]], length: int, start: Lsn
) -> None:
    changed = bytearray(SOME)
    for offset, data in mutations:
        changed[offset : offset + len(data)] = data
    content = bytes(changed[:length])
    found = look_into(content, start)
    assert {found.first_commit, found.last_commit} <= {NOON, None}
    assert {(point.name, point.time) for point in found.points} <= {("point", NOON)}
    with suppress(WalSegmentInvalid):
        check_segment(NAME, content, system_identifier=SYSTEM, total_size=MIB)


@pytest.mark.parametrize("away", [-16 * MIB, 0, 16 * MIB])
def test_a_record_inside_of_another_s_data_is_data(away: int) -> None:
    """As when somebody stores WAL in a table: CRC and all are right, the link is not."""
    other = WalWriter(STARTS[0] + away)
    other.fill(1)
    first = other.end_transaction(NOON)
    stolen = bytes(other.content[first.lsn - other.start : first.end - other.start])
    writer = WalWriter(STARTS[0])
    # The main data of a long record begins 29 bytes behind the record's start.
    writer.add(RM_HEAP, 0, (bytes(3) + stolen).ljust(40, b"\0") + (stolen.ljust(40, b"\0")) * 400)
    assert bytes(writer.content).count(stolen) > 300
    for page in (0, 1):
        content = bytes(writer.content[page * BLOCK :])
        assert look_into(content, writer.start + page * BLOCK) == WalContents()


def test_each_commit_is_found_whatever_its_neighbours_bytes_look_like() -> None:
    """At 101/… the link to the record before begins like a match: it must not hide the commit."""
    writer = WalWriter(STARTS[1])
    before = writer.fill(1)
    for number in range(600):
        time = NOON + timedelta(seconds=number)
        record = writer.end_transaction(time)
        found = look_into(bytes(writer.content), writer.start, since=before.lsn)
        assert found.last_commit == time
        before = record


@pytest.mark.parametrize("window", [64, 72, 4096])
def test_the_last_commit_is_found_wherever_the_search_is_cut(
    monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(wal_page, "_WINDOW", window)
    writer = WalWriter(STARTS[0])
    writer.end_transaction(NOON)
    for number in range(1, 60):
        time = NOON + timedelta(seconds=number)
        writer.end_transaction(time)
        writer.fill(number * 7)
        assert look_into(bytes(writer.content), writer.start) == WalContents(NOON, time)


def test_what_lies_behind_the_end_of_the_wal_does_not_count() -> None:
    """A recycled file still holds what it held under its former name."""
    old, new = WalWriter(Lsn(STARTS[0] - 16 * MIB)), WalWriter(STARTS[0])
    for _ in range(2_000):
        old.end_transaction(NOON - timedelta(days=1))
        old.restore_point(b"old", NOON)
    new.end_transaction(NOON)
    recycled = new.content.ljust(BLOCK, b"\0") + old.content[BLOCK:]
    assert look_into(bytes(recycled), new.start) == WalContents(NOON, NOON, ())


def test_a_time_outside_of_the_calendar_is_no_time() -> None:
    writer = WalWriter(STARTS[0])
    writer.add(RM_XACT, COMMIT, struct.pack("<q", 2**63 - 1))
    assert look_into(bytes(writer.content), writer.start) == WalContents()


def test_a_name_in_another_encoding_is_readable_at_least() -> None:
    writer = WalWriter(STARTS[0])
    writer.restore_point("später".encode("latin-1"), NOON)
    assert look_into(bytes(writer.content), writer.start).points[0].name == "sp\ufffdter"
