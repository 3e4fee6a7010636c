"""WAL made by hand: pages and records as PostgreSQL writes them, with CRCs and links that hold.

For tests that need WAL at odd places (near the end of a page, at terabytes), or quickly.
"""

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import google_crc32c

from shared.domain.lsn import Lsn

BLOCK: Final = 8192
MAGIC_17: Final = 0xD116
SYSTEM: Final = 7469021459732458133
MIB: Final = 1 << 20

RM_XLOG, RM_XACT, RM_HEAP = 0, 1, 10
COMMIT, PREPARE, ABORT, COMMIT_PREPARED, ABORT_PREPARED = 0x00, 0x10, 0x20, 0x30, 0x40
HAS_INFO: Final = 0x80
RESTORE_POINT: Final = 0x70
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """What was written: it begins at `lsn`, and its last byte lies before `end`."""

    lsn: Lsn
    end: Lsn


@dataclass
class WalWriter:
    """Writes from `start` on, where a segment begins; `content` is what there is so far."""

    start: Lsn
    timeline: int = 1
    magic: int = MAGIC_17
    system: int = SYSTEM
    segment_size: int = 16 * MIB
    content: bytearray = field(default_factory=bytearray)
    previous: int = 0

    def add(self, manager: int, info: int, data: bytes, parts: bytes = b"") -> Record:
        """`parts` are the record's headers before that of its main data."""
        headed = _data_header(len(data)) + data
        length = 24 + len(parts) + len(headed)
        self._begin_page_if_due(0)
        record = self.start + len(self.content)
        header = struct.pack("<IIQBBxx", length, 7, self.previous, info, manager)
        body = parts + headed
        crc = google_crc32c.extend(google_crc32c.value(body), header)
        self._write(header + struct.pack("<I", crc) + body)
        end = self.start + len(self.content)
        self.content += bytes(-len(self.content) % 8)
        self.previous = record
        return Record(record, end)

    def end_transaction(self, time: datetime, info: int = COMMIT, *, parts: bytes = b"") -> Record:
        more = bytes(300) if info & HAS_INFO else b""
        return self.add(RM_XACT, info, _timestamp(time) + more, parts)

    def restore_point(self, name: bytes, time: datetime, *, parts: bytes = b"") -> Record:
        return self.add(RM_XLOG, RESTORE_POINT, _timestamp(time) + name.ljust(64, b"\0"), parts)

    def fill(self, size: int, byte: bytes = b"\1") -> Record:
        return self.add(RM_HEAP, 0, byte * size)

    def segment(self) -> bytes:
        """The first segment, filled with zeros where nothing was written."""
        return bytes(self.content[: self.segment_size].ljust(self.segment_size, b"\0"))

    def _write(self, data: bytes) -> None:
        while data:
            self._begin_page_if_due(len(data))
            room = -len(self.content) % BLOCK or BLOCK
            self.content += data[:room]
            data = data[room:]

    def _begin_page_if_due(self, remaining: int) -> None:
        if len(self.content) % BLOCK:
            return
        long = len(self.content) % self.segment_size == 0
        info = (1 if remaining and self.content else 0) | (2 if long else 0)
        address = self.start + len(self.content)
        rest = remaining if info & 1 else 0
        self.content += struct.pack("<HHIQI4x", self.magic, info, self.timeline, address, rest)
        if long:
            self.content += struct.pack("<QII", self.system, self.segment_size, BLOCK)


def _data_header(length: int) -> bytes:
    return struct.pack("<BB", 255, length) if length < 256 else struct.pack("<BI", 254, length)


def _timestamp(time: datetime) -> bytes:
    return struct.pack("<q", (time - _EPOCH) // timedelta(microseconds=1))
