"""WAL segments as PostgreSQL 15 to 18 write them: page headers, and the records that pgkeep needs.

Formats: access/xlog_internal.h (pages), access/xlogrecord.h (records), access/xact.h (commits) and
catalog/pg_control.h (restore points). All integers are those of a little-endian machine.

Records of interest are not walked to but searched for, which takes C and not Python: a pattern
finds candidates, then the record's CRC and its link to the record before it tell them from data
that only looks like one.
"""

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

import google_crc32c

from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.domain.wal_segment import (
    SEGMENT_SIZE_MAX,
    SEGMENT_SIZE_MIN,
    WalFileName,
    segment_start,
)
from shared.errors import Refused

Buffer = bytes | bytearray | memoryview

# XLOG_PAGE_MAGIC of each major version.
MAGICS: Final = {0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
HEAD_LENGTH: Final = 40  # SizeOfXLogLongPHD
_BLOCK_SIZE: Final = 8192  # XLOG_BLCKSZ, unless PostgreSQL was built with another one
_BLOCK_SIZES: Final = frozenset(1 << power for power in range(10, 17))

_SHORT_HEAD: Final = 24  # SizeOfXLogShortPHD
_LONG: Final = struct.Struct("<HHIQI4xQII")  # XLogLongPageHeaderData
_PAGE: Final = struct.Struct("<HHIQI")  # XLogPageHeaderData
_XLP_FIRST_IS_CONTRECORD: Final = 0x0001
_XLP_LONG_HEADER: Final = 0x0002
_XLP_ALL_FLAGS: Final = 0x000F

_RECORD: Final = struct.Struct("<IIQBBxxI")  # XLogRecord: length, xid, prev, info, rmgr, CRC
_CRC_OFFSET: Final = 20
_RM_XACT: Final = 1
_XACT_OPERATIONS: Final = 0x70  # XLOG_XACT_OPMASK
# XLOG_XACT_COMMIT, _ABORT, _COMMIT_PREPARED, _ABORT_PREPARED: each begins with its time.
_XACT_ENDS: Final = frozenset({0x00, 0x20, 0x30, 0x40})
# Headers of a record's parts, by id (XLR_BLOCK_ID_…): how long each one is.
_ORIGIN, _TOPLEVEL_XID, _DATA_SHORT, _DATA_LONG = 0xFD, 0xFC, 0xFF, 0xFE
_PART_LENGTHS: Final = {_ORIGIN: 3, _TOPLEVEL_XID: 5}

# Each begins with what no match of it can overlap, and only looks ahead at the rest: a match by
# accident, say in the LSN before, must not swallow the true one behind it.
# From the byte of the resource manager on: RM_XACT, padding, CRC, and a part that is no block.
_XACT_PATTERN: Final = re.compile(rb"\x01\x00\x00(?=[\x00-\xff]{4}[\xfc-\xff])")
_XACT_PATTERN_OFFSET: Final = 17
# From xl_info on: XLOG_RESTORE_POINT, RM_XLOG, padding, CRC, and 72 bytes of xl_restore_point,
# behind the number of the transaction if it is the first record of a subtransaction.
_POINT_PATTERN: Final = re.compile(
    rb"\x70\x00\x00\x00(?=[\x00-\xff]{4}(?:\xfc[\x00-\xff]{4})?\xff\x48)"
)
_POINT_PATTERN_OFFSET: Final = 16
_TIME: Final = struct.Struct("<q")
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # of TimestampTz
# How much is searched at a time on the way back to the last commit.
_WINDOW: Final = 64 << 10


class WalSegmentInvalid(Refused):
    """A file with a segment's name that is no segment, or another one than its name says."""

    code = "wal-segment-invalid"
    hint = "Nothing was stored. Look at what put this file in the place of a WAL segment."


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """The long header of a segment's first page; sizes in bytes."""

    magic: int
    timeline: int
    page_address: Lsn
    system_identifier: int
    segment_size: int
    block_size: int

    @property
    def major(self) -> int:
        """The version of PostgreSQL that wrote it."""
        return MAGICS[self.magic]


@dataclass(frozen=True, slots=True)
class WalContents:
    """What a stretch of WAL holds for a planner; commit times are the server's, in UTC."""

    first_commit: datetime | None = None
    last_commit: datetime | None = None
    points: tuple[RestorePoint, ...] = ()


def read_head(content: Buffer) -> SegmentHead:
    """From the first 40 bytes of a segment. Raises WalSegmentInvalid."""
    if len(content) < HEAD_LENGTH:
        raise WalSegmentInvalid(f"{len(content)} bytes hold no page of WAL")
    magic, info, timeline, address, _, system, segment_size, block_size = _LONG.unpack_from(content)
    if not any(content[:HEAD_LENGTH]):
        raise WalSegmentInvalid("the segment begins with zeros: PostgreSQL never wrote it")
    if magic not in MAGICS:
        raise WalSegmentInvalid(f"the first page has magic number {magic:04X}, which is unknown")
    if not info & _XLP_LONG_HEADER or info & ~_XLP_ALL_FLAGS or timeline == 0:
        raise WalSegmentInvalid("the first page lacks the header that begins a segment")
    if not _is_size(segment_size) or block_size not in _BLOCK_SIZES:
        raise WalSegmentInvalid(
            f"the first page tells of segments of {segment_size} and pages of {block_size} bytes"
        )
    return SegmentHead(magic, timeline, Lsn(address), system, segment_size, block_size)


def check_segment(
    name: WalFileName, content: Buffer, *, system_identifier: int, total_size: int
) -> SegmentHead:
    """`content` is the segment or its beginning, `total_size` the size of the whole file.

    The first page may be of an older timeline than the name's: a promotion copies the segment in
    which it happens. Raises WalSegmentInvalid, and WalFileNameInvalid for what is no segment.
    """
    head = read_head(content)
    if total_size != head.segment_size:
        raise WalSegmentInvalid(
            f"{name} has {total_size} bytes, its first page says {head.segment_size}"
        )
    if head.system_identifier != system_identifier:
        raise WalSegmentInvalid(
            f"{name} is of system {head.system_identifier}, not of {system_identifier}"
        )
    start = segment_start(name, head.segment_size)
    if head.page_address != start:
        raise WalSegmentInvalid(f"{name} holds WAL from {head.page_address}, not from {start}")
    if head.timeline > name.timeline:
        raise WalSegmentInvalid(f"{name} holds WAL of timeline {head.timeline}")
    return head


def look_into(content: Buffer, start: Lsn, *, since: Lsn | None = None) -> WalContents:
    """First and last commit or abort, and the restore points, of the WAL from `start` on.

    `start` is where a page begins. Records count that begin at or after `since` and end inside
    `content`. Looks as far as pages are valid: behind lies a recycled file's past, or nothing.
    Raises nothing; what makes no sense holds nothing.
    """
    stream = _join_pages(content, start)
    begin = 0 if since is None else stream.position(since)
    first = next(_commits(stream, begin, len(stream.data)), None)
    if first is None:
        return WalContents(points=tuple(_points(stream, begin)))
    return WalContents(first, _last_commit(stream, begin) or first, tuple(_points(stream, begin)))


@dataclass(frozen=True, slots=True)
class _Stream:
    """The bodies of adjacent pages in one piece; a record's place in it is a multiple of 8.

    Page i's body begins at `bodies[i]` of the content, and at `starts[i]` of `data`. `contrecord`
    bytes at the beginning belong to a record that began earlier.
    """

    data: bytes
    start: Lsn
    block_size: int
    bodies: list[int]
    starts: list[int]
    contrecord: int

    def lsn(self, position: int) -> Lsn:
        page = bisect_right(self.starts, position) - 1
        return self.start + (self.bodies[page] + position - self.starts[page])

    def position(self, lsn: int) -> int:
        """Of the first byte at or after `lsn`; the end of `data` when there is none."""
        page, offset = divmod(max(0, lsn - self.start), self.block_size)
        if page >= len(self.bodies):
            return len(self.data)
        head = self.bodies[page] % self.block_size
        return min(self.starts[page] + max(0, offset - head), len(self.data))


def _join_pages(content: Buffer, start: Lsn) -> _Stream:
    view = memoryview(content)
    block_size = _block_size(view)
    bodies = _bodies(view, start, block_size)
    parts = [view[body : body - body % block_size + block_size] for body in bodies]
    starts = [0, *accumulate(map(len, parts))][: len(parts)]
    contrecord = 0
    if bodies:
        _, info, _, _, remaining = _PAGE.unpack_from(view)
        contrecord = _aligned(remaining) if info & _XLP_FIRST_IS_CONTRECORD else 0
    return _Stream(b"".join(parts), start, block_size, bodies, starts, contrecord)


def _block_size(view: memoryview) -> int:
    if len(view) < HEAD_LENGTH:
        return _BLOCK_SIZE
    _, info, *_, block_size = _LONG.unpack_from(view)
    return block_size if info & _XLP_LONG_HEADER and block_size in _BLOCK_SIZES else _BLOCK_SIZE


def _bodies(view: memoryview, start: Lsn, block_size: int) -> list[int]:
    """Where the bodies of the valid pages begin."""
    bodies: list[int] = []
    for offset in range(0, len(view) - _SHORT_HEAD, block_size):
        magic, info, _, address, _ = _PAGE.unpack_from(view, offset)
        if address != int(start) + offset or magic not in MAGICS or info & ~_XLP_ALL_FLAGS:
            break
        bodies.append(offset + (HEAD_LENGTH if info & _XLP_LONG_HEADER else _SHORT_HEAD))
    return bodies


def _last_commit(stream: _Stream, begin: int) -> datetime | None:
    for stop in range(len(stream.data), begin, -_WINDOW):
        times = list(_commits(stream, max(begin, stop - _WINDOW), stop))
        if times:
            return times[-1]
    return None


def _commits(stream: _Stream, begin: int, stop: int) -> Iterator[datetime]:
    """Times of the commits and aborts that begin in [begin, stop) of the stream."""
    found = _records(stream, _XACT_PATTERN, _XACT_PATTERN_OFFSET, begin, stop)
    for position, length, info in found:
        if info & _XACT_OPERATIONS in _XACT_ENDS:
            data = _main_data(stream.data, position, length)
            time = None if data is None else _time_at(stream.data, data)
            if time is not None:
                yield time


def _points(stream: _Stream, begin: int) -> Iterator[RestorePoint]:
    found = _records(stream, _POINT_PATTERN, _POINT_PATTERN_OFFSET, begin, len(stream.data))
    for position, length, _ in found:
        data = _main_data(stream.data, position, length)
        time = None if data is None else _time_at(stream.data, data)
        if data is not None and time is not None:
            raw = stream.data[data + _TIME.size : position + length].partition(b"\0")[0]
            # In the database's encoding, which nobody tells us.
            yield RestorePoint(stream.lsn(position), raw.decode("utf-8", "replace"), time)


def _records(
    stream: _Stream, pattern: re.Pattern[bytes], offset: int, begin: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """Position, length and info of the whole records that match `pattern` at `offset`."""
    # A match may reach over the end: the record that begins before `stop` counts.
    for match in pattern.finditer(stream.data, begin + offset, stop + _RECORD.size + 8):
        position = match.start() - offset
        if position % 8 or position >= stop:
            continue
        length, _, previous, info, _, crc = _RECORD.unpack_from(stream.data, position)
        if _RECORD.size < length <= len(stream.data) - position:  # noqa: SIM102 - in order of cost
            if _follows(stream, position, previous) and _crc(stream.data, position, length) == crc:
                yield position, length, info


def _follows(stream: _Stream, position: int, previous: int) -> bool:
    """Whether the record that began at the LSN `previous` ends where this one begins."""
    if previous >= stream.lsn(position):
        return False
    if previous < stream.start:
        return position == stream.contrecord
    before = stream.position(previous)
    (length,) = struct.unpack_from("<I", stream.data, before)
    return before + _aligned(length) == position


def _crc(data: bytes, position: int, length: int) -> int:
    """As xloginsert.c computes it: first what follows the header, then the header up to its CRC."""
    body = google_crc32c.value(data[position + _RECORD.size : position + length])
    return int(google_crc32c.extend(body, data[position : position + _CRC_OFFSET]))


def _main_data(data: bytes, position: int, length: int) -> int | None:
    """Where the main data of a record without blocks begins; it reaches to the record's end."""
    part, end = position + _RECORD.size, position + length
    while part < end and data[part] in _PART_LENGTHS:
        part += _PART_LENGTHS[data[part]]
    if part + 5 > end:
        return None
    if data[part] == _DATA_SHORT:
        return part + 2 if part + 2 + data[part + 1] == end else None
    size = int.from_bytes(data[part + 1 : part + 5], "little")
    return part + 5 if data[part] == _DATA_LONG and part + 5 + size == end else None


def _time_at(data: bytes, position: int) -> datetime | None:
    if position + _TIME.size > len(data):
        return None
    try:
        return _EPOCH + timedelta(microseconds=_TIME.unpack_from(data, position)[0])
    except OverflowError:
        return None


def _aligned(length: int) -> int:
    return (length + 7) & ~7


def _is_size(size: int) -> bool:
    return SEGMENT_SIZE_MIN <= size <= SEGMENT_SIZE_MAX and size.bit_count() == 1
