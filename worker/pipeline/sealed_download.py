"""Sealed blobs on their way down: whole and in order, or any run of frames.

Reader's order, everywhere: length from the signed document, last segment first, authenticate,
bound, decompress; no byte leaves before its segment's tag was verified.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

from shared.domain import fetch_plan
from shared.errors import FrameCorrupt
from shared.repository.blob_store import BlobName, BlobStore
from worker.pipeline.in_order import map_in_order
from worker.pipeline.sealed_stream import (
    HEADER_LENGTH,
    STREAM_WINDOW,
    Buffer,
    Fetch,
    SegmentOpener,
    SegmentSpan,
    open_object,
)
from worker.pipeline.seekable_zstd import FrameTable, decompress_frame, seek_table_length

StoredWatch = Callable[[Buffer, int], None]
"""Sees the stored bytes of a blob in order, and how many segments they are."""

# Small sealed objects (index, facts, manifest) end with a seek table of few frames: one segment
# always holds it for objects of up to 64 GiB, so the table needs no further round trip.
_FOOTER = seek_table_length(0)


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A blob with a proven length, ready to be read from any thread.

    `stored` gives its stored bytes [start, end).
    """

    name: BlobName
    opener: SegmentOpener
    stored: Fetch

    def compressed(self, offset: int, length: int) -> memoryview:
        """`length` bytes at `offset` of the zstd stream, authenticated."""
        return memoryview(self.opener.open_range(offset, offset + length, self.stored))

    def frames(self, fetch: fetch_plan.Fetch) -> Iterator[tuple[fetch_plan.PlannedFrame, bytes]]:
        """The fetch's frames that fill anything, in order, each with its plaintext.

        Raises SegmentCorrupt, FrameCorrupt.
        """
        data = self.compressed(fetch.stored_offset, fetch.stored_length)
        ends = accumulate((frame.stored_length for frame in fetch.frames), initial=0)
        for frame, (start, end) in zip(fetch.frames, pairwise(ends), strict=True):
            if frame.extents:
                yield frame, decompress_frame(data[start:end], frame.plain_length)

    def frame_table(self) -> FrameTable:
        """The seek table behind the frames. Raises FrameCorrupt."""
        length = self.opener.plain_length
        if length < _FOOTER:
            raise FrameCorrupt(f"{self.name} holds no seek table")
        count = int.from_bytes(self.compressed(length - 9, 4), "little")
        size = seek_table_length(count)
        if size > length:
            raise FrameCorrupt(f"{self.name} cannot hold a seek table of {count} frames")
        return FrameTable.parse(self.compressed(length - size, size), length)


def open_blob(
    store: BlobStore, name: BlobName, data_key: bytes, aad: bytes, stored_size: int
) -> SealedBlob:
    """`stored_size` is the signed document's. Raises SegmentCorrupt, BlobNotFound, Corrupt."""

    def fetch(start: int, end: int) -> bytes:
        return store.read_range(name, start, end - start)

    return _opened(name, data_key, aad, stored_size, fetch)


def open_at_once(
    store: BlobStore, name: BlobName, data_key: bytes, aad: bytes, stored_size: int
) -> SealedBlob:
    """The same in one request, for what is small; its stored bytes stay in memory."""
    whole = memoryview(store.read_range(name, 0, stored_size))
    return _opened(name, data_key, aad, stored_size, lambda start, end: whole[start:end])


def _opened(
    name: BlobName, data_key: bytes, aad: bytes, stored_size: int, stored: Fetch
) -> SealedBlob:
    return SealedBlob(name, open_object(data_key, aad, stored, stored_size, name=str(name)), stored)


def read_whole(
    blob: SealedBlob, executor: Executor, depth: int, watch: StoredWatch | None = None
) -> Iterator[bytes]:
    """The plaintext in order, frame by frame; `depth` windows are fetched and opened ahead.

    Reads every stored byte once; `watch` sees them in order. Raises FrameCorrupt when the seek
    table, the frames and the stream do not fill one another exactly.
    """
    table = blob.frame_table()
    stream = _Reader(_compressed_stream(blob, executor, depth, watch))
    frames = ((stream.take(stored), plain) for stored, plain in table.sizes())
    yield from map_in_order(executor, _decompress, frames, depth)
    if stream.rest() != table.to_bytes():
        raise FrameCorrupt(f"{blob.name} holds more than its frames and their table")


def _decompress(frame: tuple[bytes, int]) -> bytes:
    return decompress_frame(*frame)


def _compressed_stream(
    blob: SealedBlob, executor: Executor, depth: int, watch: StoredWatch | None
) -> Iterator[Buffer]:
    last = blob.opener.last_segment.last
    spans = (
        blob.opener.span(first, min(first + STREAM_WINDOW - 1, last))
        for first in range(0, last + 1, STREAM_WINDOW)
    )
    if watch is not None:
        watch(blob.stored(0, HEADER_LENGTH), 0)
    windows = map_in_order(executor, partial(_open, blob), spans, depth)
    yield from map(partial(_watched, watch), windows)


def _watched(watch: StoredWatch | None, window: tuple[Buffer, Buffer, int]) -> Buffer:
    """A function of its own, so that nothing keeps the stored bytes while the others are used."""
    stored, plain, segments = window
    if watch is not None:
        watch(stored, segments)
    return plain


def _open(blob: SealedBlob, span: SegmentSpan) -> tuple[Buffer, Buffer, int]:
    stored = blob.stored(span.start, span.end)
    return stored, blob.opener.open_span(span, stored), span.last - span.first + 1


class _Reader:
    """Exact pieces out of a stream of arbitrary ones."""

    def __init__(self, chunks: Iterator[Buffer]) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")

    def take(self, size: int) -> bytes:
        pieces = [self._buffer[:size]]
        missing = size - len(pieces[0])
        self._buffer = self._buffer[size:]
        while missing:
            chunk = memoryview(next(self._chunks, b""))
            if not chunk:
                raise FrameCorrupt("the stream ends inside a frame")
            pieces.append(chunk[:missing])
            self._buffer = chunk[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def rest(self) -> bytes:
        return b"".join((self._buffer, *self._chunks))
