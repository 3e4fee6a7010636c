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
