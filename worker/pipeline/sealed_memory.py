"""Sealed objects that are small enough to be in memory whole, such as a WAL segment.

The same bytes as worker.pipeline.sealed_upload writes: zstd frames with their seek table, sealed.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from itertools import accumulate, pairwise

from shared.errors import FrameCorrupt
from worker.pipeline.in_order import map_in_order
from worker.pipeline.sealed_stream import Buffer, SegmentOpener, SegmentSealer, open_object
from worker.pipeline.seekable_zstd import (
    MAX_FRAME,
    FrameTable,
    compress_frame,
    decompress_frame,
    seek_table_length,
)

_IN_FLIGHT = 4  # frames, of at most 4 MiB each
# Behind the frame count in the seek table's footer: a descriptor and a magic number.
_COUNT_FROM_END = 9


def seal(
    plain: Buffer,
    key: tuple[bytes, bytes],
    *,
    random: Callable[[int], bytes],
    compression: Executor,
    level: int,
) -> bytes:
    """`key` is (data key, AAD). Frames are compressed by `compression`, at zstd level `level`."""
    sealer, table = SegmentSealer(*key, random=random), FrameTable()
    pieces: list[bytes] = []
    view = memoryview(plain)
    cuts = [view[offset : offset + MAX_FRAME] for offset in range(0, len(view), MAX_FRAME)]
    frames = map_in_order(compression, partial(compress_frame, level=level), cuts, _IN_FLIGHT)
    for cut, frame in zip(cuts, frames, strict=True):
        table.append(len(frame), len(cut))
        pieces += sealer.feed(frame)
    pieces += sealer.feed(table.to_bytes())
    return b"".join((*pieces, sealer.finish()))


def opener_of(stored: Buffer, key: tuple[bytes, bytes], name: str) -> SegmentOpener:
    """Raises SegmentCorrupt at once when `key` is another object's, or the object was cut."""
    view = memoryview(stored)
    return open_object(*key, lambda start, end: view[start:end], len(view), name=name)


def unseal(stored: Buffer, opener: SegmentOpener, *, limit: int) -> bytes:
    """The plaintext, of at most `limit` bytes. Raises SegmentCorrupt, FrameCorrupt."""
    view = memoryview(stored)
    stream = b"".join(opener.open_stream(lambda start, end: view[start:end]))
    table = _table_of(stream)
    if table.plain_length > limit:
        raise FrameCorrupt(f"the frames hold {table.plain_length} bytes, more than {limit}")
    sizes = table.sizes()
    bounds = pairwise(accumulate((stored for stored, _ in sizes), initial=0))
    with memoryview(stream) as frames:
        return b"".join(
            decompress_frame(frames[start:end], plain)
            for (start, end), (_, plain) in zip(bounds, sizes, strict=True)
        )


def _table_of(stream: bytes) -> FrameTable:
    if len(stream) < seek_table_length(0):
        raise FrameCorrupt(f"a stream of {len(stream)} bytes holds no seek table")
    count = int.from_bytes(stream[-_COUNT_FROM_END:][:4], "little")
    size = seek_table_length(count)
    if size > len(stream):
        raise FrameCorrupt(f"{len(stream)} bytes cannot hold a seek table of {count} frames")
    return FrameTable.parse(stream[-size:], len(stream))
