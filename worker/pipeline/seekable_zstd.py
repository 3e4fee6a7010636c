"""Frames of at most 4 MiB of plaintext and the seek table behind them: standard zstd, yet seekable.

Frames are compressed independently, so in parallel, and carry content size and checksum. The table
is the skippable frame of zstd's contrib/seekable_format/zstd_seekable_compression_format.md,
without its optional checksums: every frame has one of its own, and segments are authenticated.
"""

import struct
import sys
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Self

import zstandard

from shared.errors import FrameCorrupt, PgkeepError

MAX_FRAME = 4 << 20
MAX_WINDOW = 8 << 20
DEFAULT_LEVEL = 1  # on heap-like pages level 3 was slower and no smaller

_SKIPPABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_HEAD = struct.Struct("<II")  # skippable magic, length of what follows
_FOOT = struct.Struct("<IBI")  # frames, descriptor, seekable magic
_ENTRY = struct.Struct("<II")  # compressed size, plaintext size

Buffer = bytes | bytearray | memoryview


class _Contexts(threading.local):
    """zstd contexts of one thread: they are costly to make and must not be shared."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        if level not in self.compressors:
            self.compressors[level] = zstandard.ZstdCompressor(
                level=level, write_checksum=True, write_content_size=True
            )
        return self.compressors[level]


_contexts = _Contexts()


def compress_frame(plain: Buffer, level: int = DEFAULT_LEVEL) -> bytes:
    """One frame of 1 byte to MAX_FRAME bytes of plaintext. Safe to call from any thread."""
    if not 0 < len(plain) <= MAX_FRAME:
        raise PgkeepError(f"a frame holds 1 to {MAX_FRAME} bytes, not {len(plain)}")
    return _contexts.compressor(level).compress(plain)


def decompress_frame(frame: Buffer, plain_size: int) -> bytes:
    """The frame's plaintext, exactly `plain_size` bytes. Safe to call from any thread.

    The header is judged before anything is allocated: zstandard ignores max_output_size when a
    frame declares its size, and 32 KiB can declare 1 GiB. Raises FrameCorrupt.
    """
    if not 0 < plain_size <= MAX_FRAME:
        raise FrameCorrupt(f"a frame of {plain_size} bytes is outside 1 to {MAX_FRAME}")
    try:
        _check_header(zstandard.get_frame_parameters(frame), plain_size)
        plain = _contexts.decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FrameCorrupt(f"a frame of {len(frame)} bytes does not decompress: {error}") from None
    if len(plain) != plain_size:
        raise FrameCorrupt(f"a frame holds {len(plain)} bytes instead of {plain_size}")
    return plain


def _check_header(header: zstandard.FrameParameters, plain_size: int) -> None:
    if header.content_size != plain_size:
        raise FrameCorrupt(f"a frame declares {header.content_size} bytes instead of {plain_size}")
    if header.window_size > MAX_WINDOW:
        raise FrameCorrupt(f"a frame asks for a window of {header.window_size} bytes")
    if header.dict_id or not header.has_checksum:
        raise FrameCorrupt("a frame needs a dictionary or lacks its checksum")


class FrameCutter:
    """Cuts a stream of small chunks into plaintext frames; each byte is copied once.

    Chunks are kept until their frame is complete: the caller must not change them afterwards.
    """

    def __init__(self, frame_size: int = MAX_FRAME) -> None:
        self._frame_size = frame_size
        self._chunks: list[Buffer] = []
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of the frame that is being filled."""
        return self._held

    def feed(self, chunk: Buffer) -> list[bytes]:
        """The frames that are now full, in order."""
        if self._held + len(chunk) < self._frame_size:
            self._keep(chunk)
            return []
        frames: list[bytes] = []
        rest = memoryview(chunk)
        while self._held + len(rest) >= self._frame_size:
            taken = self._frame_size - self._held
            self._keep(rest[:taken])
            frames += self.cut()
            rest = rest[taken:]
        self._keep(rest)
        return frames

    def cut(self) -> list[bytes]:
        """Ends the frame here, as at a member's boundary: one frame, or none if nothing is held."""
        frame = b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        return [frame] if frame else []

    def finish(self) -> list[bytes]:
        return self.cut()

    def _keep(self, chunk: Buffer) -> None:
        if len(chunk):
            self._chunks.append(chunk)
            self._held += len(chunk)


class FrameTable:
    """Where each frame begins, in plaintext and in the compressed stream; grows while writing.

    Two arrays of running totals, so 16 384 frames (a volume of 64 GiB) cost 256 KiB.
    """

    def __init__(self, sizes: Iterable[tuple[int, int]] = ()) -> None:
        """`sizes`: (compressed, plaintext) bytes of each frame in order."""
        self._compressed = array("Q", [0])
        self._plain = array("Q", [0])
        for compressed_size, plain_size in sizes:
            self.append(compressed_size, plain_size)

    def append(self, compressed_size: int, plain_size: int) -> None:
        """Raises FrameCorrupt for sizes that no frame has."""
        if not (compressed_size > 0 and 0 < plain_size <= MAX_FRAME):
            raise FrameCorrupt(f"no frame of {compressed_size} bytes holds {plain_size}")
        self._compressed.append(self._compressed[-1] + compressed_size)
        self._plain.append(self._plain[-1] + plain_size)

    def __len__(self) -> int:
        return len(self._plain) - 1

    @property
    def plain_length(self) -> int:
        return self._plain[-1]

    @property
    def compressed_length(self) -> int:
        """Bytes of all frames, without the seek table."""
        return self._compressed[-1]

    @property
    def stream_length(self) -> int:
        """Bytes of the compressed stream: frames and seek table."""
        return self.compressed_length + seek_table_length(len(self))

    def frames(self, start: int, end: int) -> range:
        """The frames that hold plaintext [start, end). Raises FrameCorrupt when it ends earlier."""
        if not 0 <= start <= end <= self.plain_length:
            raise FrameCorrupt(f"plaintext {start}-{end} lies outside {self.plain_length} bytes")
        if start == end:
            return range(0)
        return range(bisect_right(self._plain, start) - 1, bisect_left(self._plain, end))

    def compressed_span(self, frames: range) -> tuple[int, int]:
        """[start, end) of adjacent frames in the compressed stream."""
        return self._compressed[frames.start], self._compressed[frames.stop]

    def plain_span(self, frames: range) -> tuple[int, int]:
        """[start, end) of adjacent frames in the plaintext."""
        return self._plain[frames.start], self._plain[frames.stop]

    def sizes(self) -> list[tuple[int, int]]:
        """(compressed, plaintext) bytes of each frame in order."""
        return list(zip(_differences(self._compressed), _differences(self._plain), strict=True))

    def to_bytes(self) -> bytes:
        """The seek table that closes the compressed stream."""
        entries = array("I", [size for pair in self.sizes() for size in pair])
        if sys.byteorder == "big":
            entries.byteswap()
        head = _HEAD.pack(_SKIPPABLE_MAGIC, seek_table_length(len(self)) - _HEAD.size)
        return head + entries.tobytes() + _FOOT.pack(len(self), 0, _SEEKABLE_MAGIC)

    @classmethod
    def parse(cls, table: Buffer, stream_length: int) -> Self:
        """From the last `seek_table_length(frames)` bytes of a stream of `stream_length` bytes.

        Raises FrameCorrupt, also when the frames do not fill the stream before the table.
        """
        if len(table) < seek_table_length(0):
            raise FrameCorrupt(f"a seek table is not {len(table)} bytes long")
        frames = _check_frame_of_table(table)
        read = cls(_ENTRY.iter_unpack(table[_HEAD.size : _HEAD.size + frames * _ENTRY.size]))
        if read.stream_length != stream_length:
            raise FrameCorrupt(
                f"frames and seek table make {read.stream_length} bytes, not {stream_length}"
            )
        return read


def seek_table_length(frames: int) -> int:
    return _HEAD.size + frames * _ENTRY.size + _FOOT.size


def _check_frame_of_table(table: Buffer) -> int:
    """The number of frames, once every fixed field of the table has its value."""
    magic, length = _HEAD.unpack_from(table)
    frames, descriptor, seekable_magic = _FOOT.unpack_from(table, len(table) - _FOOT.size)
    if (magic, seekable_magic, descriptor) != (_SKIPPABLE_MAGIC, _SEEKABLE_MAGIC, 0):
        raise FrameCorrupt("a seek table lacks its magic numbers or has unknown options")
    if len(table) != seek_table_length(frames) or length != len(table) - _HEAD.size:
        raise FrameCorrupt(f"a seek table of {frames} frames is not {len(table)} bytes long")
    return int(frames)


def _differences(totals: "array[int]") -> list[int]:
    return [after - before for before, after in pairwise(totals)]
