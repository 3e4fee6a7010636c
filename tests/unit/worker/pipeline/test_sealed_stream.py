"""The sealed stream: Tink's bytes both ways, every manipulation refused, any range in any order."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import tink
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PgkeepError, SegmentCorrupt
from tests.unit.worker.pipeline import tink_oracle
from worker.pipeline.sealed_stream import (
    HEADER_LENGTH,
    SEGMENT_SIZE,
    TAG_LENGTH,
    Geometry,
    SegmentOpener,
    SegmentSealer,
    open_object,
    open_whole,
)

KEY = bytes(range(32))
AAD = b"pgkeep1\nuuid\n7301\nkid\nfull/label/base.pgdata.0000\n"
SMALL = Geometry(256)
FIRST = SMALL.capacity(0)
FULL = SMALL.capacity(1)
BOUNDARY_SIZES = sorted(
    {0, 1, 2}
    | {
        FIRST + n * FULL + delta
        for n in range(4)
        for delta in (-TAG_LENGTH - 1, -TAG_LENGTH, -1, 0, 1, TAG_LENGTH)
    }
)


def counting_random() -> Callable[[int], bytes]:
    """The bytes 20, 21, 22 …: salt 20..3f and prefix 40..46, as in the test vector."""
    drawn = iter(range(0x20, 0x100))
    return lambda size: bytes(next(drawn) for _ in range(size))


def plaintext(size: int) -> bytes:
    return bytes(i & 255 for i in range(size))


def seal(
    plain: bytes,
    geometry: Geometry = SMALL,
    *,
    key: bytes = KEY,
    aad: bytes = AAD,
    chunk: int = 1 << 30,
) -> bytes:
    sealer = SegmentSealer(key, aad, random=counting_random(), geometry=geometry)
    pieces = [
        piece for i in range(0, len(plain), chunk) for piece in sealer.feed(plain[i : i + chunk])
    ]
    return b"".join([*pieces, sealer.finish()])


def open_stored(stored: bytes, length: int, *, key: bytes = KEY, aad: bytes = AAD) -> bytes:
    return open_whole(key, aad, stored, length, name="volume", geometry=SMALL)


def opener_of(stored: bytes) -> SegmentOpener:
    return open_object(
        KEY, AAD, lambda a, b: stored[a:b], len(stored), name="volume", geometry=SMALL
    )


def test_the_test_vector_of_the_format_is_met() -> None:
    sealed = seal(plaintext(10_000), Geometry(4096), aad=b"aad-vector")
    assert len(sealed) == 10_088
    digest = "06b4ad59da02b4a23ebdc6e92b08cb828772c272bb4fd097824310735cd8308a"
    assert hashlib.sha256(sealed).hexdigest() == digest


@pytest.mark.parametrize("size", BOUNDARY_SIZES)
def test_tink_opens_what_we_seal_and_we_open_what_tink_seals(size: int) -> None:
    plain = plaintext(size)
    ours = seal(plain)
    theirs = tink_oracle.seal(KEY, AAD, plain, SMALL.segment_size)
    assert tink_oracle.open_(KEY, AAD, ours, SMALL.segment_size) == plain
    assert open_stored(theirs, len(theirs)) == plain
    assert len(ours) == len(theirs) == SMALL.stored_length(size)
    assert SMALL.plaintext_length(len(theirs)) == size


@pytest.mark.parametrize("delta", [-1, 0, 1])
def test_tink_agrees_at_the_boundaries_of_real_segments_of_one_mebibyte(delta: int) -> None:
    geometry = Geometry()
    plain = plaintext(geometry.capacity(0) + geometry.capacity(1) + delta)
    ours = seal(plain, geometry, chunk=300_000)
    assert tink_oracle.open_(KEY, AAD, ours, SEGMENT_SIZE) == plain
    theirs = tink_oracle.seal(KEY, AAD, plain, SEGMENT_SIZE)
    assert open_whole(KEY, AAD, theirs, len(ours), name="volume") == plain


@given(st.integers(0, 5 * 256), st.integers(1, 700))
def test_the_sealed_bytes_do_not_depend_on_how_they_were_fed(size: int, chunk: int) -> None:
    assert seal(plaintext(size), chunk=chunk) == seal(plaintext(size))


@given(st.lists(st.integers(1, 600), max_size=6))
def test_every_piece_but_the_last_is_one_whole_segment(sizes: list[int]) -> None:
    sealer = SegmentSealer(KEY, AAD, random=counting_random(), geometry=SMALL)
    pieces = [piece for size in sizes for piece in sealer.feed(memoryview(bytes(size)))]
    last = sealer.finish()
    assert all(len(piece) == SMALL.segment_size for piece in pieces)
    assert 0 < len(last) <= SMALL.segment_size
    assert len(b"".join(pieces)) + len(last) == SMALL.stored_length(sum(sizes))


def test_a_caller_may_reuse_its_buffer_after_feeding_it() -> None:
    sealer = SegmentSealer(KEY, AAD, random=counting_random(), geometry=SMALL)
    buffer = bytearray(plaintext(100))
    pieces = sealer.feed(buffer)
    buffer[:] = bytes(100)
    sealed = b"".join([*pieces, sealer.finish()])
    assert open_stored(sealed, len(sealed)) == plaintext(100)


def test_a_finished_sealer_seals_nothing_more() -> None:
    sealer = SegmentSealer(KEY, AAD, random=counting_random())
    sealer.finish()
    with pytest.raises(PgkeepError, match="finished"):
        sealer.feed(b"more")
    with pytest.raises(PgkeepError, match="finished"):
        sealer.finish()


def test_a_data_key_of_another_length_is_not_used() -> None:
    with pytest.raises(PgkeepError, match="32 bytes, not 16"):
        SegmentSealer(KEY[:16], AAD, random=counting_random())


@given(st.integers(0, 2000))
def test_lengths_convert_both_ways_and_spans_tile_the_object(size: int) -> None:
    stored_length = SMALL.stored_length(size)
    assert SMALL.plaintext_length(stored_length) == size
    count = SMALL.segments(stored_length)
    spans = [SMALL.stored_span(i, i, stored_length) for i in range(count)]
    assert [spans[0].start, spans[-1].end] == [HEADER_LENGTH, stored_length]
    assert all(spans[i].end == spans[i + 1].start for i in range(count - 1))
    assert all(SMALL.segment_of(SMALL.plain_start(i)) == i for i in range(count))


@given(st.integers(0, 2000))
def test_a_length_is_possible_exactly_when_some_plaintext_has_it(stored_length: int) -> None:
    possible = stored_length in {SMALL.stored_length(size) for size in range(2000)}
    try:
        SMALL.plaintext_length(stored_length)
    except SegmentCorrupt:
        assert not possible
    else:
        assert possible


@given(st.data())
def test_any_range_reads_as_the_whole_does(data: st.DataObject) -> None:
    plain = plaintext(data.draw(st.integers(0, 1500)))
    end = data.draw(st.integers(0, len(plain)))
    start = data.draw(st.integers(0, end))
    stored = seal(plain)
    part = opener_of(stored).open_range(start, end, lambda a, b: stored[a:b])
    assert bytes(part) == plain[start:end]


def test_a_range_is_read_with_one_fetch_of_only_the_segments_around_it() -> None:
    stored = seal(plaintext(1500))
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        fetched.append((start, end))
        return stored[start:end]

    start = FIRST + FULL - 1
    part = opener_of(stored).open_range(start, start + 2, fetch)
    assert bytes(part) == plaintext(1500)[start : start + 2]
    assert fetched == [(256, 768)]


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (2, 1), (0, 1501)])
def test_a_range_outside_the_plaintext_is_refused(start: int, end: int) -> None:
    stored = seal(plaintext(1500))
    with pytest.raises(SegmentCorrupt, match="no plaintext"):
        opener_of(stored).open_range(start, end, lambda a, b: stored[a:b])


def test_threads_open_segments_in_any_order() -> None:
    plain = plaintext(20_000)
    stored = seal(plain)
    opener = opener_of(stored)
    indices = list(reversed(range(SMALL.segments(len(stored)))))

    def open_one(index: int) -> bytearray:
        span = opener.span(index, index)
        return opener.open(index, stored[span.start : span.end])

    with ThreadPoolExecutor(4) as pool:
        pieces = list(pool.map(open_one, indices))
    assert b"".join(reversed(pieces)) == plain


def test_no_segment_opens_before_the_last_one_proved_the_length() -> None:
    stored = seal(plaintext(1000))
    opener = SegmentOpener(
        KEY, AAD, stored[:HEADER_LENGTH], len(stored), name="volume", geometry=SMALL
    )
    with pytest.raises(PgkeepError, match="last segment of volume must be opened first"):
        opener.open(0, stored[HEADER_LENGTH:256])
    span = opener.last_segment
    opener.open(span.last, stored[span.start : span.end])
    assert opener.open(0, stored[HEADER_LENGTH:256]) == plaintext(FIRST)


STORED = seal(plaintext(FIRST + 3 * FULL + 50))  # five segments, the last one short
OTHER = seal(bytes(FIRST + 3 * FULL + 50), aad=AAD + b"other")


def segment(stored: bytes, index: int) -> bytes:
    return stored[index * 256 : (index + 1) * 256]


TAMPERED = {
    "cut at a segment's end": STORED[: 4 * 256],
    "cut inside a segment": STORED[:700],
    "cut inside the last tag": STORED[:-1],
    "two segments swapped": STORED[:256] + segment(STORED, 2) + segment(STORED, 1) + STORED[768:],
    "a middle segment dropped": STORED[:256] + STORED[512:],
    "the first segment dropped": STORED[:40] + STORED[256:],
    "a segment duplicated": STORED[:512] + STORED[256:],
    "the last segment duplicated": STORED + STORED[4 * 256 :],
    "a byte appended": STORED + b"\0",
    "a segment appended": STORED + bytes(256),
    "empty": b"",
    "header only": STORED[:HEADER_LENGTH],
    "header and part of a tag": STORED[: HEADER_LENGTH + 15],
    "a segment of another object": STORED[:256] + segment(OTHER, 1) + STORED[512:],
    "the header of another object": bytes([40, *range(1, 40)]) + STORED[40:],
    "a header of another length": b"\x29" + STORED[1:],
}


@pytest.mark.parametrize("stored", TAMPERED.values(), ids=TAMPERED.keys())
def test_tampering_is_refused_by_us_and_by_tink(stored: bytes) -> None:
    with pytest.raises(SegmentCorrupt):
        open_stored(stored, len(STORED))
    with pytest.raises(SegmentCorrupt):
        open_stored(stored, len(stored))  # a forger would make the claimed length fit, too
    with pytest.raises(tink.TinkError):
        tink_oracle.open_(KEY, AAD, stored, SMALL.segment_size)


@pytest.mark.parametrize(
    ("key", "aad"),
    [(bytes(32), AAD), (KEY, AAD[:-1]), (KEY, AAD.replace(b"0000", b"0001")), (KEY, b"")],
    ids=["wrong key", "AAD without its last newline", "AAD of another volume", "no AAD"],
)
def test_a_wrong_key_or_aad_is_refused_by_us_and_by_tink(key: bytes, aad: bytes) -> None:
    with pytest.raises(SegmentCorrupt):
        open_stored(STORED, len(STORED), key=key, aad=aad)
    with pytest.raises(tink.TinkError):
        tink_oracle.open_(key, aad, STORED, SMALL.segment_size)


@given(st.integers(0, len(STORED) * 8 - 1))
def test_any_flipped_bit_is_refused_by_us_and_by_tink(bit: int) -> None:
    flipped = bytearray(STORED)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SegmentCorrupt):
        open_stored(bytes(flipped), len(STORED))
    with pytest.raises(tink.TinkError):
        tink_oracle.open_(KEY, AAD, bytes(flipped), SMALL.segment_size)


@given(st.binary(max_size=1200))
def test_random_bytes_never_open(stored: bytes) -> None:
    with pytest.raises(SegmentCorrupt):
        open_stored(stored, len(stored))


def test_the_message_names_object_and_offset_and_nothing_before_is_given_out() -> None:
    stored = bytearray(STORED)
    stored[600] ^= 1
    opener = opener_of(STORED)
    given_out: list[bytearray] = []

    def read_all() -> None:
        for plain in opener.open_stream(lambda a, b: stored[a:b], window=1):
            given_out.append(plain)  # noqa: PERF402 - what came before the error is the point

    with pytest.raises(SegmentCorrupt, match="segment 2 of volume at offset 512 does not"):
        read_all()
    assert b"".join(given_out) == plaintext(FIRST + FULL)


def test_a_fetch_that_returns_too_little_is_refused() -> None:
    with pytest.raises(SegmentCorrupt, match="holds 10 bytes instead of 216 at offset 40"):
        opener_of(STORED).open_range(0, 1, lambda a, _: STORED[a : a + 10])
    opener = opener_of(STORED)
    with pytest.raises(SegmentCorrupt, match="holds 3 bytes"):
        opener.open(1, b"abc")
