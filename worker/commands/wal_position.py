"""Where a receiver goes on: the archive decides; slot and server fill in what it does not know.

Several segments are stored at once, so a crash may leave a hole before the newest one. A receiver
goes on at the first hole, as far back as such a hole can be.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.timeline import TimelineHistory
from shared.domain.wal_inventory import ArchivedWal, WalInventory
from shared.domain.wal_segment import segment_name
from shared.repository import layout
from shared.repository.blob_store import BlobStore
from shared.repository.wal_listing import archived_wal

# As many segments as [wal] parallel allows can be stored ahead of one that is missing.
_LOOK_BACK: Final = 16
# A search asks whether there is anything at all behind a name; junk there is passed over.
_FEW: Final = 4


@dataclass(frozen=True, slots=True)
class Position:
    """A segment's start on a timeline."""

    timeline: int
    lsn: Lsn


@dataclass(frozen=True, slots=True)
class Line:
    """A timeline and its ancestors, cut into segments."""

    history: TimelineHistory
    segment_size: int

    @property
    def timelines(self) -> tuple[int, ...]:
        """Oldest first."""
        return (*(one.timeline for one in self.history.ancestors), self.history.timeline)

    def floor(self, lsn: Lsn) -> Lsn:
        """The start of the segment that holds `lsn`."""
        return Lsn(lsn - lsn % self.segment_size)

    def at(self, lsn: Lsn) -> Position:
        """The segment that holds `lsn`, on the timeline that the line takes there."""
        start = self.floor(lsn)
        left = sum(branch.switch <= start for branch in self.history.ancestors)
        return Position(self.timelines[left], start)

    def continued(self, position: Position) -> Position:
        """The same, or where the line goes on, if it has left the position's timeline before."""
        children = self.timelines[1:]
        for branch, child in zip(self.history.ancestors, children, strict=True):
            if branch.timeline == position.timeline and branch.switch <= position.lsn:
                position = Position(child, self.floor(branch.switch))
        return position


@dataclass(frozen=True, slots=True)
class ServerView:
    """What the server tells: its line, how far it is, and where its slot holds back WAL."""

    line: Line
    end: Lsn
    slot_lsn: Lsn | None


@dataclass(frozen=True, slots=True)
class _Archive:
    """The log that the archive has of one timeline."""

    store: BlobStore
    cluster: ClusterName
    timeline: int
    segment_size: int

    def since(self, lsn: Lsn, page: int | None = None) -> Iterator[ArchivedWal]:
        """What lies in the segment of `lsn` and behind."""
        folder = layout.wal_prefix(self.cluster, self.timeline)
        start = folder + segment_name(self.timeline, lsn, self.segment_size)
        for info in self.store.list(layout.WAL, folder, start=start, page=page):
            if item := archived_wal(info, self.segment_size):
                yield item

    def any_since(self, lsn: Lsn) -> bool:
        return next(self.since(lsn, page=_FEW), None) is not None

    def newest_before(self, lsn: Lsn) -> Lsn:
        """Start of the newest segment of which there is something. There is, but before `lsn`."""
        found, beyond = 0, lsn // self.segment_size
        while beyond - found > 1:
            middle = (found + beyond) // 2
            if self.any_since(Lsn(middle * self.segment_size)):
                found = middle
            else:
                beyond = middle
        return Lsn(found * self.segment_size)


def find_position(
    store: BlobStore, cluster: ClusterName, server: ServerView, lost: Position | None
) -> Position:
    """Where to go on. `lost` is what the server was asked for, and no longer had."""
    line = server.line
    for timeline in reversed(line.timelines):
        archive = _Archive(store, cluster, timeline, line.segment_size)
        if archive.any_since(Lsn(0)):
            skip = lost.lsn if lost and lost.timeline == timeline else None
            return line.continued(_first_hole(archive, server, skip))
    return line.at(server.end if server.slot_lsn is None else server.slot_lsn)


def position_after(lost: Position, server: ServerView, oldest: Lsn | None) -> Position | None:
    """Where to go on when the server no longer has `lost`; `oldest` is what it still has."""
    known = (oldest, server.slot_lsn, server.end)
    behind = [lsn for lsn in known if lsn is not None and server.line.floor(lsn) > lost.lsn]
    return server.line.at(min(behind)) if behind else None


def _first_hole(archive: _Archive, server: ServerView, skip: Lsn | None) -> Position:
    items = list(archive.since(_where_to_look(archive, server)))
    ranges = WalInventory().adding(items).of(archive.timeline)
    holes = [Position(archive.timeline, server.line.floor(one.end)) for one in ranges]
    if server.slot_lsn is not None and server.line.floor(server.slot_lsn) < ranges[0].start:
        holes.insert(0, server.line.at(server.slot_lsn))
    return _first_behind(holes, skip)


def _first_behind(holes: Iterable[Position], skip: Lsn | None) -> Position:
    """The last one if all of them are lost."""
    *_, last = holes
    return next((one for one in holes if skip is None or one.lsn > skip), last)


def _where_to_look(archive: _Archive, server: ServerView) -> Lsn:
    """Before that nothing is missing that the slot or a crash could explain."""
    limit = {one.timeline: one.switch for one in server.line.history.ancestors}
    end = limit.get(archive.timeline, server.end)
    begin = _back(end if server.slot_lsn is None else min(server.slot_lsn, end), archive)
    if archive.any_since(begin):
        return begin
    return _back(archive.newest_before(begin), archive)


def _back(lsn: Lsn, archive: _Archive) -> Lsn:
    return Lsn(max(0, lsn - _LOOK_BACK * archive.segment_size))
