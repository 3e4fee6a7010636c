"""Names in the WAL archive, for every segment size that initdb allows."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import LSN_MAX, Lsn
from shared.domain.wal_segment import (
    SEGMENT_SIZE_MAX,
    WalFileKind,
    WalFileName,
    WalPiece,
    parse_wal_object,
    segment_name,
    segment_start,
    segments_between,
)
from shared.errors import LsnInvalid, WalFileNameInvalid, WalSegmentSizeInvalid

MIB = 1 << 20
sizes = st.integers(20, 30).map(lambda exponent: 1 << exponent)
timelines = st.integers(1, 2**32 - 1)
positions = st.integers(0, LSN_MAX).map(Lsn)
halves = st.integers(0, 2**32 - 1)


@st.composite
def names(draw: st.DrawFn) -> WalFileName:
    kind = draw(st.sampled_from(WalFileKind))
    if kind is WalFileKind.HISTORY:
        return WalFileName(kind, draw(timelines))
    offset = draw(halves) if kind is WalFileKind.BACKUP else 0
    return WalFileName(kind, draw(timelines), draw(halves), draw(halves), offset)


@given(names())
def test_a_name_reads_back_as_its_parts(name: WalFileName) -> None:
    assert WalFileName.parse(str(name)) == name


@given(timelines, positions, sizes)
def test_the_segment_of_a_position_begins_at_most_one_size_before_it(
    timeline: int, lsn: Lsn, size: int
) -> None:
    name = WalFileName.parse(segment_name(timeline, lsn, size))
    assert name.timeline == timeline
    assert 0 <= lsn - segment_start(name, size) < size


@given(timelines, positions, st.integers(0, 5), sizes)
def test_a_range_names_each_segment_that_it_touches_once_and_in_order(
    timeline: int, start: Lsn, segments: int, size: int
) -> None:
    stop = Lsn(min(int(start) + segments * size, LSN_MAX))
    found = list(segments_between(timeline, start, stop, size))
    assert found == sorted(set(found))
    assert found[0] == segment_name(timeline, start, size)
    assert found[-1] == segment_name(timeline, max(start, Lsn(max(stop, 1) - 1)), size)
    assert len(found) <= segments + 1


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (1 * MIB, "000000020000001600000B37"),
        (16 * MIB, "0000000200000016000000B3"),
        (64 * MIB, "00000002000000160000002C"),
        (1024 * MIB, "000000020000001600000002"),
    ],
)
def test_the_segment_size_decides_the_name(size: int, name: str) -> None:
    assert segment_name(2, Lsn.parse("16/B374D848"), size) == name


def test_a_range_that_stops_at_a_boundary_does_not_need_the_next_segment() -> None:
    start, stop = Lsn.parse("0/2000028"), Lsn.parse("0/4000000")
    assert list(segments_between(1, start, stop, 16 * MIB)) == [
        "000000010000000000000002",
        "000000010000000000000003",
    ]


def test_a_range_over_the_whole_log_is_not_built_in_memory() -> None:
    names = segments_between(1, Lsn(0), Lsn(LSN_MAX), MIB)
    assert list(islice(names, 2)) == ["000000010000000000000000", "000000010000000000000001"]


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(LsnInvalid, match="before its start"):
        segments_between(1, Lsn(2), Lsn(1), MIB)


@pytest.mark.parametrize("size", [0, -1, MIB - 1, MIB + 1, MIB // 2, 2048 * MIB, 3 * MIB])
def test_a_size_that_initdb_refuses_is_refused(size: int) -> None:
    with pytest.raises(WalSegmentSizeInvalid, match=f"{size} bytes"):
        segment_name(1, Lsn(0), size)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0000000100000000000000A7", WalFileKind.SEGMENT),
        ("0000000100000000000000A7.partial", WalFileKind.PARTIAL),
        ("00000002.history", WalFileKind.HISTORY),
        ("0000000100000000000000A7.00000028.backup", WalFileKind.BACKUP),
    ],
)
def test_the_four_kinds_of_files_are_told_apart(text: str, kind: WalFileKind) -> None:
    assert WalFileName.parse(text).kind is kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RECOVERYXLOG",
        "0000000100000000000000a7",
        "0000000100000000000000A",
        "0000000100000000000000A77",
        "0000000100000000000000A7 ",
        "0000000100000000000000A7\n",
        "0000000100000000000000A7.partial.gz",
        "0000000100000000000000A7.28.backup",
        "0000000100000000000000A7.history",
        "00000002.partial",
        "pg_wal/0000000100000000000000A7",
        "../0000000100000000000000A7",
        "0000000000000000000000A7",
        "00000000.history",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(WalFileNameInvalid):
        WalFileName.parse(text)


@given(st.text(max_size=50))
def test_any_text_is_either_a_name_or_refused(text: str) -> None:
    try:
        name = WalFileName.parse(text)
    except WalFileNameInvalid:
        return
    assert str(name) == text


def test_a_history_file_has_no_start() -> None:
    with pytest.raises(WalFileNameInvalid, match="no start LSN"):
        segment_start(WalFileName.parse("00000002.history"), 16 * MIB)


def test_a_segment_number_beyond_what_the_size_allows_is_refused() -> None:
    name = WalFileName.parse("000000010000000000000100")
    assert segment_start(name, 8 * MIB) == Lsn.parse("0/80000000")
    with pytest.raises(WalFileNameInvalid, match="cannot exist"):
        segment_start(name, 16 * MIB)


@st.composite
def pieces(draw: st.DrawFn) -> WalPiece:
    start = draw(st.integers(0, SEGMENT_SIZE_MAX - 1))
    stop = draw(st.integers(start + 1, SEGMENT_SIZE_MAX))
    return WalPiece(draw(timelines), draw(halves), draw(halves), start, stop)


@given(st.one_of(names(), pieces()))
def test_every_object_of_the_archive_reads_back_from_its_name(item: WalFileName | WalPiece) -> None:
    assert parse_wal_object(str(item)) == item


@given(pieces())
def test_a_piece_knows_its_segment_and_is_no_file_of_postgresql(piece: WalPiece) -> None:
    assert piece.name.kind is WalFileKind.SEGMENT
    assert str(piece).startswith(f"{piece.name}.")
    assert WalPiece.of(piece.name, piece.start, piece.stop) == piece
    with pytest.raises(WalFileNameInvalid):
        WalFileName.parse(str(piece))


def test_pieces_of_a_segment_are_listed_in_order() -> None:
    name = WalFileName.parse("0000000100000000000000A7")
    made = [WalPiece.of(name, start, start + 9) for start in (0, 10, 255, 4096, 1 << 29)]
    assert sorted(map(str, reversed(made))) == list(map(str, made))
    assert str(made[1]) == "0000000100000000000000A7.0000000A-00000013.partial"


@pytest.mark.parametrize(
    "text",
    [
        "0000000100000000000000A7.00000000-00000000.partial",
        "0000000100000000000000A7.00000002-00000001.partial",
        "0000000100000000000000A7.00000000-40000001.partial",
        "0000000100000000000000A7.0-1.partial",
        "0000000100000000000000A7.00000000-0000000a.partial",
        "0000000100000000000000A7.00000000-00000001",
        "0000000000000000000000A7.00000000-00000001.partial",
        "00000002.history.00000000-00000001.partial",
    ],
)
def test_what_cannot_be_a_piece_is_refused(text: str) -> None:
    with pytest.raises(WalFileNameInvalid):
        parse_wal_object(text)


@pytest.mark.parametrize("text", ["00000002.history", "0000000100000000000000A7.partial"])
def test_only_a_segment_has_pieces(text: str) -> None:
    with pytest.raises(WalFileNameInvalid, match="no piece"):
        WalPiece.of(WalFileName.parse(text), 0, 1)


@given(st.text(st.sampled_from("0A7.-partial"), max_size=60))
def test_any_text_is_an_object_of_the_archive_or_refused(text: str) -> None:
    try:
        item = parse_wal_object(text)
    except WalFileNameInvalid:
        return
    assert str(item) == text
