"""Frames: cut without loss, read by plain zstd, found by offset, and never larger than they may."""

import io
import resource
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import FrameCorrupt, PgkeepError
from worker.pipeline.seekable_zstd import (
    MAX_FRAME,
    FrameCutter,
    FrameTable,
    compress_frame,
    decompress_frame,
    seek_table_length,
)

SIZES = st.lists(st.tuples(st.integers(1, 2**32 - 1), st.integers(1, MAX_FRAME)), max_size=50)


def stream_of(frames: list[bytes]) -> tuple[bytes, FrameTable]:
    compressed = [compress_frame(frame) for frame in frames]
    table = FrameTable(
        (len(small), len(plain)) for small, plain in zip(compressed, frames, strict=True)
    )
    return b"".join(compressed) + table.to_bytes(), table


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 3))
def test_a_frame_decompresses_to_what_was_compressed(plain: bytes, level: int) -> None:
    assert decompress_frame(memoryview(compress_frame(plain, level)), len(plain)) == plain


def test_a_frame_carries_its_size_and_a_checksum() -> None:
    header = zstandard.get_frame_parameters(compress_frame(bytes(MAX_FRAME)))
    assert (header.content_size, header.has_checksum) == (MAX_FRAME, True)


@pytest.mark.parametrize("plain", [b"", bytes(MAX_FRAME + 1)], ids=["empty", "too large"])
def test_no_frame_is_empty_or_larger_than_four_mebibytes(plain: bytes) -> None:
    with pytest.raises(PgkeepError, match="a frame holds 1 to"):
        compress_frame(plain)


def test_frames_compress_and_decompress_in_parallel() -> None:
    frames = [bytes([i]) * 100_000 + bytes(range(256)) * i for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        compressed = list(pool.map(compress_frame, frames))
        restored = list(pool.map(decompress_frame, compressed, map(len, frames)))
    assert restored == frames


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
def test_a_plain_zstd_reader_reads_frames_and_table_as_one_stream(frames: list[bytes]) -> None:
    stream, _ = stream_of(frames)
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stream), read_across_frames=True)
    assert reader.read() == b"".join(frames)


@given(st.lists(st.binary(max_size=50)), st.integers(1, 64), st.sets(st.integers(0, 20)))
def test_cutting_loses_nothing_and_only_a_cut_makes_a_frame_short(
    chunks: list[bytes], frame_size: int, cuts: set[int]
) -> None:
    cutter = FrameCutter(frame_size)
    frames: list[bytes] = []
    for i, chunk in enumerate(chunks):
        frames += cutter.feed(memoryview(chunk))
        assert cutter.held < frame_size
        if i in cuts:
            frames += cutter.cut()
    frames += cutter.finish()
    assert b"".join(frames) == b"".join(chunks)
    assert all(0 < len(frame) <= frame_size for frame in frames)
    assert sum(len(frame) < frame_size for frame in frames) <= len(cuts) + 1


@given(SIZES)
def test_a_frame_table_reads_back_as_it_was_written(sizes: list[tuple[int, int]]) -> None:
    table = FrameTable(sizes)
    written = table.to_bytes()
    assert len(written) == seek_table_length(len(sizes))
    assert FrameTable.parse(written, table.stream_length).sizes() == sizes


def test_the_seek_table_has_the_bytes_of_the_zstd_seekable_format() -> None:
    assert FrameTable([(0x0102, 0x0304)]).to_bytes().hex(" ", -4) == (
        "5e2a4d18 11000000 02010000 04030000 01000000 00b1ea92 8f"
    )


@given(SIZES.filter(bool), st.data())
def test_the_frames_of_a_range_are_exactly_those_that_overlap_it(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    table = FrameTable(sizes)
    end = data.draw(st.integers(0, table.plain_length))
    start = data.draw(st.integers(0, end))
    spans = [table.plain_span(range(i, i + 1)) for i in range(len(table))]
    overlapping = [i for i, (low, high) in enumerate(spans) if low < end and start < high]
    assert list(table.frames(start, end)) == (overlapping if start < end else [])


def test_a_range_of_plaintext_is_read_from_its_frames_alone() -> None:
    frames = [bytes([i]) * (100 + i) for i in range(10)]
    stream, table = stream_of(frames)
    start, end = 250, 433
    found = table.frames(start, end)
    low, high = table.compressed_span(found)
    reader = zstandard.ZstdDecompressor().stream_reader(stream[low:high], read_across_frames=True)
    skipped = start - table.plain_span(found)[0]
    assert reader.read()[skipped : skipped + end - start] == b"".join(frames)[start:end]
    assert found == range(2, 5)


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (3, 2), (0, 11)])
def test_a_range_outside_the_plaintext_is_refused(start: int, end: int) -> None:
    with pytest.raises(FrameCorrupt, match="lies outside"):
        FrameTable([(5, 10)]).frames(start, end)


TABLE = FrameTable([(500, 1000), (600, 1000)])


@pytest.mark.parametrize(
    "table",
    [
        b"",
        TABLE.to_bytes()[:-1],
        TABLE.to_bytes()[8:],
        TABLE.to_bytes() + b"\0",
        b"\0" + TABLE.to_bytes()[1:],
        TABLE.to_bytes()[:-5] + b"\x80" + TABLE.to_bytes()[-4:],
        TABLE.to_bytes()[:-9] + b"\xff\xff\xff\x7f" + TABLE.to_bytes()[-5:],
        FrameTable([(500, 1000)]).to_bytes(),
        FrameTable([(500, 1000), (601, 1000)]).to_bytes(),
        TABLE.to_bytes()[:8] + bytes(4) + TABLE.to_bytes()[12:],
        TABLE.to_bytes()[:12] + b"\x01\0\x40\0" + TABLE.to_bytes()[16:],
    ],
    ids=[
        "empty", "cut", "without head", "byte appended", "wrong magic", "unknown option",
        "claims 2^31 frames", "frame missing", "frame longer", "empty frame", "frame of 4 MiB + 1",
    ],
)  # fmt: skip
def test_a_frame_table_that_does_not_hold_together_is_refused(table: bytes) -> None:
    with pytest.raises(FrameCorrupt):
        FrameTable.parse(table, TABLE.stream_length)


@given(st.binary(max_size=200), st.integers(0, 5000))
def test_random_bytes_are_no_frame_table_unless_they_write_back_the_same(
    table: bytes, stream_length: int
) -> None:
    try:
        read = FrameTable.parse(table, stream_length)
    except FrameCorrupt:
        return
    assert read.to_bytes() == table


@given(st.data())
def test_a_changed_frame_is_refused_or_reads_the_same(data: st.DataObject) -> None:
    plain = bytes(range(200)) * 3
    frame = bytearray(compress_frame(plain))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert decompress_frame(frame, len(plain)) == plain
    except FrameCorrupt as error:
        assert error.code == "frame-corrupt"  # noqa: PT017 - either outcome is right


@given(st.binary(max_size=300), st.integers(-1, MAX_FRAME + 1))
def test_random_bytes_never_make_anything_but_a_refusal(frame: bytes, size: int) -> None:
    with pytest.raises(FrameCorrupt):
        decompress_frame(frame, size)


def unsized(plain: bytes, **options: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(write_checksum=True, **options)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return writer.compress(plain) + writer.flush()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (compress_frame(b"a" * 99), "declares 99 bytes instead of 100"),
        (unsized(b"a" * 100), "declares"),
        (zstandard.ZstdCompressor().compress(b"a" * 100), "lacks its checksum"),
        (compress_frame(b"a" * 100)[:-1], "does not decompress"),
        (compress_frame(b"a" * 100) + b"\0", "does not decompress"),
        (compress_frame(b"a" * 100) * 2, "does not decompress"),
        (TABLE.to_bytes(), "declares"),
    ],
    ids=["size", "no size", "no checksum", "cut", "appended", "two frames", "skippable"],
)
def test_a_frame_that_is_not_one_of_ours_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(FrameCorrupt, match=reason):
        decompress_frame(frame, 100)


def test_a_window_of_two_gibibytes_is_refused() -> None:
    # Magic, descriptor (8-byte size, not single-segment, checksum), window byte 2^31, size 100.
    header = bytes.fromhex("28b52ffd c4 a8") + (100).to_bytes(8, "little")
    with pytest.raises(FrameCorrupt, match="window of 2147483648 bytes"):
        decompress_frame(header + bytes(20), 100)


BOMBS = """
    import resource, zstandard
    from shared.errors import FrameCorrupt
    from worker.pipeline.seekable_zstd import MAX_FRAME, decompress_frame
    limit = 512 << 20
    honest = zstandard.ZstdCompressor(write_checksum=True)
    writer = honest.compressobj(size=1 << 30)
    bomb = b"".join(writer.compress(bytes(1 << 20)) for _ in range(1024)) + writer.flush()
    assert zstandard.get_frame_parameters(bomb).content_size == 1 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # The honest bomb, and one that lies: 1 GiB of content behind a header that declares 4 MiB.
    lying = bomb[:6] + MAX_FRAME.to_bytes(4, "little") + bomb[10:]
    assert zstandard.get_frame_parameters(lying).content_size == MAX_FRAME
    for frame, size in [(bomb, 1 << 30), (bomb, MAX_FRAME), (lying, MAX_FRAME)]:
        try:
            decompress_frame(frame, size)
        except FrameCorrupt as error:
            print(error.code)
"""


def test_bombs_are_refused_within_bounded_memory() -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOMBS)], capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["frame-corrupt"] * 3, run.stderr


def test_a_table_of_the_largest_volume_stays_small() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = FrameTable((MAX_FRAME, MAX_FRAME) for _ in range(16_384))
    assert table.plain_length == 64 << 30
    assert table.frames(32 << 30, (32 << 30) + 1) == range(8192, 8193)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
