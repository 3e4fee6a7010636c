"""WAL as it arrives: where the bytes of a segment collect, and what of them is to be stored.

A segment larger than PIECE_MAX collects in stretches of that size, so that memory stays bounded.
"""

from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Final

from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, WalObject, WalPiece, segment_name
from worker.commands.wal_archive import PIECE_MAX
from worker.postgres.wal_page import WalContents, check_segment, look_into

# Where a page begins, whatever XLOG_BLCKSZ (1 to 64 KiB) PostgreSQL was built with.
_PAGE_BOUNDARY: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Portion:
    """Bytes of a segment that go into the archive as one object.

    `prefix` is what arrived of the stretch up to the portion's end; its last bytes, from `start`
    on, are the portion. It is a view: nothing in it changes any more. `waiting_since` (monotonic)
    its oldest byte that was in no portion before has been here.
    """

    item: WalObject
    start: Lsn
    stretch: Lsn
    prefix: memoryview
    waiting_since: float | None = None

    @property
    def end(self) -> Lsn:
        return self.stretch + len(self.prefix)

    @property
    def content(self) -> memoryview:
        return self.prefix[self.start - self.stretch :]

    def contents(self) -> WalContents:
        """Commits and restore points of the records that begin in it."""
        page = (self.start - self.stretch) // _PAGE_BOUNDARY * _PAGE_BOUNDARY
        return look_into(self.prefix[page:], self.stretch + page, since=self.start)


class Stretch:
    """A segment, or PIECE_MAX bytes of a larger one, in the course of being received."""

    def __init__(self, timeline: int, start: Lsn, segment_size: int) -> None:
        """`start` is a segment's start, or PIECE_MAX bytes and more behind one."""
        self.start = start
        self.waiting_since: float | None = None
        self._name = WalFileName.parse(segment_name(timeline, start, segment_size))
        self._offset = start % segment_size
        self._segment_size = segment_size
        self._bytes = memoryview(bytearray(min(segment_size, PIECE_MAX)))
        self._received = 0
        self._handed = 0

    @property
    def end(self) -> Lsn:
        return self.start + self._received

    @property
    def full(self) -> bool:
        return self._received == len(self._bytes)

    def take(self, data: memoryview, now: float) -> memoryview:
        """Keep what belongs here; gives back what does not."""
        mine = data[: len(self._bytes) - self._received]
        self._bytes[self._received : self._received + len(mine)] = mine
        self._received += len(mine)
        if mine and self.waiting_since is None:
            self.waiting_since = now
        return data[len(mine) :]

    def all(self) -> Portion:
        """The whole stretch, which is full."""
        return self._portion(0)

    def tail(self) -> Portion:
        """What arrived since the last tail."""
        portion = self._portion(self._handed)
        self._handed = self._received
        self.waiting_since = None
        return portion

    def _portion(self, begin: int) -> Portion:
        item: WalObject = self._name
        if (begin, self._received) != (0, self._segment_size):
            item = WalPiece.of(self._name, self._offset + begin, self._offset + self._received)
        prefix = self._bytes[: self._received].toreadonly()
        return Portion(item, self.start + begin, self.start, prefix, self.waiting_since)


def check(portion: Portion, system_identifier: int, segment_size: int) -> None:
    """Raises WalSegmentInvalid when the segment does not begin as one of this cluster must."""
    name = portion.item.name if isinstance(portion.item, WalPiece) else portion.item
    if portion.start % segment_size == 0:
        content = portion.content
        check_segment(name, content, system_identifier=system_identifier, total_size=segment_size)


class DurableEnd:
    """How far everything is durable without a hole, whatever was stored first (W19)."""

    def __init__(self, start: Lsn) -> None:
        self.lsn = start
        self.last_commit: datetime | None = None
        self._ahead: list[tuple[Lsn, Lsn, datetime | None]] = []

    def add(self, start: Lsn, end: Lsn, last_commit: datetime | None = None) -> None:
        """Bytes [start, end) are durable."""
        ahead = sorted([*self._ahead, (start, end, last_commit)], key=itemgetter(0))
        self._ahead = []
        for one in ahead:
            begin, stop, commit = one
            if begin > self.lsn:
                self._ahead.append(one)
            elif stop > self.lsn:
                self.lsn = stop
                self.last_commit = commit or self.last_commit
