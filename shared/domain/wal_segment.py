"""Names of files in the WAL archive, and the stretch of log that each segment holds.

Rules from PostgreSQL's access/xlog_internal.h. The segment size is the cluster's (initdb
--wal-segsize), so no function here assumes 16 MiB.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from shared.domain.lsn import Lsn
from shared.errors import LsnInvalid, WalFileNameInvalid, WalSegmentSizeInvalid

SEGMENT_SIZE_MIN: Final = 1 << 20  # WalSegMinSize
SEGMENT_SIZE_MAX: Final = 1 << 30  # WalSegMaxSize
_LOG_SIZE: Final = 1 << 32  # the second of a name's three numbers counts in 4 GiB
_NAME = re.compile(
    r"(?P<timeline>[0-9A-F]{8})"
    r"(?:\.history"
    r"|(?P<log>[0-9A-F]{8})(?P<segment>[0-9A-F]{8})"
    r"(?:(?P<partial>\.partial)|\.(?P<offset>[0-9A-F]{8})\.backup)?)",
)
_PIECE = re.compile(
    r"(?P<name>[0-9A-F]{24})\.(?P<start>[0-9A-F]{8})-(?P<stop>[0-9A-F]{8})\.partial"
)


class WalFileKind(StrEnum):
    SEGMENT = "segment"
    PARTIAL = "partial"
    HISTORY = "history"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class WalFileName:
    """One name in the archive, taken apart; `str()` gives the name back."""

    kind: WalFileKind
    timeline: int
    log: int = 0
    segment: int = 0
    offset: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accepts base names only, in the upper case PostgreSQL writes; else WalFileNameInvalid."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise WalFileNameInvalid(f"{text[:80]!r} is not the name of a WAL file")
        numbers = {
            part: int(match[part] or "0", 16) for part in ("timeline", "log", "segment", "offset")
        }
        if numbers["timeline"] == 0:
            raise WalFileNameInvalid(f"{text!r} names timeline 0, which does not exist")
        return cls(kind=_kind(match), **numbers)

    def __str__(self) -> str:
        segment = f"{self.timeline:08X}{self.log:08X}{self.segment:08X}"
        match self.kind:
            case WalFileKind.SEGMENT:
                return segment
            case WalFileKind.PARTIAL:
                return f"{segment}.partial"
            case WalFileKind.HISTORY:
                return f"{self.timeline:08X}.history"
            case WalFileKind.BACKUP:
                return f"{segment}.{self.offset:08X}.backup"


@dataclass(frozen=True, slots=True, order=True)
class WalPiece:
    """Bytes [start, stop) of a segment that was still being written: what a receiver stores.

    Named `<segment>.<start 8 hex>-<stop 8 hex>.partial`; `str()` gives the name back.
    """

    timeline: int
    log: int
    segment: int
    start: int
    stop: int

    @classmethod
    def of(cls, name: WalFileName, start: int, stop: int) -> Self:
        """Raises WalFileNameInvalid for an empty piece, or one of what is no segment."""
        if name.kind is not WalFileKind.SEGMENT or not 0 <= start < stop <= SEGMENT_SIZE_MAX:
            raise WalFileNameInvalid(f"{name} has no piece from {start} to {stop}")
        return cls(name.timeline, name.log, name.segment, start, stop)

    @property
    def name(self) -> WalFileName:
        """The segment that it is a piece of."""
        return WalFileName(WalFileKind.SEGMENT, self.timeline, self.log, self.segment)

    def __str__(self) -> str:
        return f"{self.name}.{self.start:08X}-{self.stop:08X}.partial"


WalObject = WalFileName | WalPiece
"""Whatever has a name of its own in the archive."""


def parse_wal_object(text: str) -> WalObject:
    """Raises WalFileNameInvalid."""
    match = _PIECE.fullmatch(text)
    if match is None:
        return WalFileName.parse(text)
    start, stop = int(match["start"], 16), int(match["stop"], 16)
    return WalPiece.of(WalFileName.parse(match["name"]), start, stop)


def _kind(match: re.Match[str]) -> WalFileKind:
    if match["log"] is None:
        return WalFileKind.HISTORY
    if match["offset"] is not None:
        return WalFileKind.BACKUP
    return WalFileKind.PARTIAL if match["partial"] else WalFileKind.SEGMENT


def segment_name(timeline: int, lsn: Lsn, segment_size: int) -> str:
    """The segment that holds the byte at `lsn`; at a boundary that is the one beginning there."""
    return _numbered_name(timeline, lsn // _checked(segment_size), segment_size)


def segments_between(timeline: int, start: Lsn, stop: Lsn, segment_size: int) -> Iterator[str]:
    """Names, in order, of the segments that hold the bytes from `start` up to before `stop`.

    An empty range still needs the segment of its start: that is where recovery looks. Raises
    LsnInvalid when stop lies before start.
    """
    if stop < start:
        raise LsnInvalid(f"the range ends at {stop}, before its start {start}")
    first = start // _checked(segment_size)
    last = max(first, (stop - 1) // segment_size if stop else 0)
    return (_numbered_name(timeline, n, segment_size) for n in range(first, last + 1))


def segment_start(name: WalFileName, segment_size: int) -> Lsn:
    """The LSN of a segment's first byte; raises WalFileNameInvalid for names that hold no log."""
    if name.kind is WalFileKind.HISTORY:
        raise WalFileNameInvalid(f"{name} is a history file and has no start LSN")
    if name.segment >= _LOG_SIZE // _checked(segment_size):
        raise WalFileNameInvalid(f"{name} cannot exist with segments of {segment_size} bytes")
    return Lsn(name.log * _LOG_SIZE + name.segment * segment_size)


def _numbered_name(timeline: int, number: int, segment_size: int) -> str:
    log, segment = divmod(number, _LOG_SIZE // segment_size)
    return str(WalFileName(WalFileKind.SEGMENT, timeline, log, segment))


def _checked(segment_size: int) -> int:
    if not SEGMENT_SIZE_MIN <= segment_size <= SEGMENT_SIZE_MAX or segment_size.bit_count() != 1:
        raise WalSegmentSizeInvalid(
            f"{segment_size} bytes is no WAL segment size: it must be a power of two "
            "from 1 MiB to 1 GiB"
        )
    return segment_size
