"""From listings of the WAL archive to what it holds; no blob is opened here.

Names sort like positions in the log. What is new since the last look lies behind the name where
that one ended, and there the next one begins: nobody lists the whole archive twice.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.timeline import TimelineHistory
from shared.domain.wal_inventory import ArchivedWal, ListedArchive, WalInventory, WalRange
from shared.domain.wal_segment import (
    WalFileKind,
    WalFileName,
    WalPiece,
    segment_name,
    segment_start,
)
from shared.errors import Corrupt, InvalidInput, NotFound, WalFileNameInvalid
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobName, BlobStore
from shared.repository.wal_metadata import WalMetadata

# Of a segment that is stored in pieces, each look reads the whole one and where sessions begin:
# they sort first, and there is one for each time that a receiver was started within the segment.
_BEGINNINGS: Final = 32
# Of more holes than this in a timeline the newest are looked at each time, of the others as many.
_HOLES: Final = 8
# At a hole that stays one a listing stops at once: what follows need not be fetched.
_PAGE_AT_HOLE: Final = 16
# A receiver that starts anew stores pieces between those that are known: one look of so many reads
# every piece of the segment where the log ends, the others only what lies behind that end.
_THOROUGH: Final = 8


class ArchiveSnapshot(BaseModel):
    """What the archive held when it was last looked at; `turn` counts the looks.

    `segment_size` None: nobody told it, and no whole segment was seen yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    segment_size: int | None = None
    turn: int = Field(default=0, ge=0)
    ranges: tuple[WalRange, ...] = ()

    @property
    def inventory(self) -> WalInventory:
        return WalInventory(self.ranges)


@dataclass(frozen=True, slots=True)
class _Timeline:
    store: BlobStore
    cluster: ClusterName
    number: int
    segment_size: int

    def behind(
        self, lsn: Lsn, *, thorough: bool = True, page: int | None = None
    ) -> Iterator[ArchivedWal]:
        """What begins at `lsn` or later, and what begins before and may reach further.

        Unless `thorough`, a piece in the midst of a segment that began before `lsn` is left out.
        """
        segment = segment_name(self.number, lsn, self.segment_size)
        offset = lsn % self.segment_size
        start = segment
        if offset and thorough:
            yield from self._items(segment)
            start = f"{segment}/"  # sorts behind every name that begins with the segment's
        elif offset:
            yield from islice(self._items(segment, page=_BEGINNINGS), _BEGINNINGS)
            start = f"{segment}.{offset:08X}"
        yield from self._items(start=start, page=page)

    def within(self, hole: tuple[Lsn, Lsn], *, thorough: bool) -> Iterator[ArchivedWal]:
        """What may fill the hole."""
        found = self.behind(hole[0], thorough=thorough, page=_PAGE_AT_HOLE)
        return takewhile(lambda item: item.start < hole[1], found)

    def _items(
        self, segments: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[ArchivedWal]:
        folder = layout.wal_prefix(self.cluster, self.number)
        prefix = layout.wal_prefix(self.cluster, self.number, segments)
        for info in self.store.list(layout.WAL, prefix, start=f"{folder}{start}", page=page):
            item = archived_wal(info, self.segment_size)
            if item is not None:
                yield item


def archived_wal(info: BlobInfo, segment_size: int) -> ArchivedWal | None:
    """The log in a blob; None for a blob that holds none to replay, as PostgreSQL's own `.partial`.

    What is none of ours, or cannot be what its name says, is logged and passed over: junk must not
    hide the rest of the archive. A blob that lost its metadata counts, without commits.
    """
    try:
        stretch = _stretch(info.name, segment_size)
    except InvalidInput as error:
        log_event("blob-foreign", name=str(info.name), code=error.code)
        return None
    if stretch is None:
        return None
    timeline, start, end = stretch
    told = WalMetadata.from_blob(info.metadata)
    if told is None:
        return ArchivedWal(timeline, start, end, stored_bytes=info.size, told=False)
    if told.size != end - start:
        log_event("wal-size-differs", name=str(info.name), told=told.size, size=end - start)
        return None
    return ArchivedWal(
        timeline, start, end, told.first_commit, told.last_commit, told.points, info.size
    )


def list_archive(
    store: BlobStore,
    cluster: ClusterName,
    *,
    segment_size: int,
    since: tuple[int, Lsn],
    read_history: Callable[[int], bytes] | None,
) -> ListedArchive:
    """What can matter to a recovery from `since`, a position on a timeline.

    Timelines with a lower number cannot; on one with a higher number, the log from that position
    on. `read_history` gives the content of a timeline's history file; without it, all of them are
    missing from the answer. One that cannot be read is logged and missing, too: a plan that does
    not need it shall not fail.
    """
    first, lsn = since
    folders, histories = _timelines(store, cluster)
    begin = Lsn(lsn - lsn % segment_size)
    items: list[ArchivedWal] = []
    for number in folders:
        if number >= first:
            items += _Timeline(store, cluster, number, segment_size).behind(begin)
    known = {1: TimelineHistory(1)} if first == 1 else {}
    if read_history is not None:
        found = {n: _history(n, read_history) for n in histories if n >= first}
        known |= {number: history for number, history in found.items() if history}
    return ListedArchive(segment_size, tuple(items), known)


def refresh(
    store: BlobStore,
    cluster: ClusterName,
    snapshot: ArchiveSnapshot | None,
    segment_size: int | None = None,
) -> ArchiveSnapshot:
    """The snapshot brought up to date. Reads what is new, and what fills holes that were known.

    Beyond what is new it reads a bounded number of blobs per timeline, however long the archive
    is. Without a snapshot, or when that was taken with another segment size, it reads all names.
    """
    known = _continued(snapshot, segment_size)
    numbers, _ = _timelines(store, cluster)
    size = known.segment_size or _find_segment_size(store, cluster, numbers)
    inventory = known.inventory
    if size is not None:
        for number in numbers:
            timeline = _Timeline(store, cluster, number, size)
            inventory = _brought_up(timeline, inventory, known.turn)
    return ArchiveSnapshot(segment_size=size, turn=known.turn + 1, ranges=inventory.ranges)


def _brought_up(timeline: _Timeline, inventory: WalInventory, turn: int) -> WalInventory:
    thorough = turn % _THOROUGH == 0
    newest = inventory.newest(timeline.number)
    known = _holes(inventory, timeline.number)
    end = newest.end if newest else Lsn(0)
    inventory = inventory.adding(timeline.behind(end, thorough=thorough))
    for hole in _due(_holes(inventory, timeline.number), turn) if newest else ():
        news = timeline.within(hole, thorough=thorough or hole not in known)
        inventory = inventory.adding(news)
    return inventory


def _holes(inventory: WalInventory, timeline: int) -> Sequence[tuple[Lsn, Lsn]]:
    """Where log may still arrive: before the first range, for it may have overtaken, and between
    any two.
    """
    first = inventory.through(timeline)
    return [(Lsn(0), first.start), *inventory.gaps(timeline)] if first else []


def _due(holes: Sequence[tuple[Lsn, Lsn]], turn: int) -> Sequence[tuple[Lsn, Lsn]]:
    """The newest each time; the others in their turn."""
    newest, others = holes[-_HOLES:], holes[:-_HOLES]
    turns = -(-len(others) // _HOLES) or 1
    return [*newest, *others[turn % turns :: turns]]


def _continued(snapshot: ArchiveSnapshot | None, segment_size: int | None) -> ArchiveSnapshot:
    if snapshot is None or (segment_size and snapshot.segment_size not in {None, segment_size}):
        return ArchiveSnapshot(segment_size=segment_size)
    return snapshot.model_copy(update={"segment_size": segment_size or snapshot.segment_size})


def _find_segment_size(
    store: BlobStore, cluster: ClusterName, timelines: Sequence[int]
) -> int | None:
    """By the first whole segment that tells."""
    for number in timelines:
        for info in store.list(layout.WAL, layout.wal_prefix(cluster, number)):
            if size := _told_segment_size(info):
                return size
    return None


def _timelines(store: BlobStore, cluster: ClusterName) -> tuple[Sequence[int], Sequence[int]]:
    """Numbers of the timelines that have log, and of those that have a history file."""
    folders: list[int] = []
    histories: list[int] = []
    prefix = layout.wal_prefix(cluster)
    for name in store.list_folder(layout.WAL, prefix):
        try:
            if name.endswith("/"):
                folders.append(WalFileName.parse(f"{name[:-1]}.history").timeline)
            else:
                _, item = layout.parse_wal(BlobName(layout.WAL, f"{prefix}{name}"))
                histories.append(item.timeline)
        except InvalidInput as error:
            log_event("blob-foreign", name=f"{layout.WAL}/{prefix}{name}", code=error.code)
    return folders, histories


def _history(number: int, read_history: Callable[[int], bytes]) -> TimelineHistory | None:
    try:
        return TimelineHistory.parse(number, read_history(number))
    except (Corrupt, NotFound) as error:
        log_event("history-unreadable", level=logging.WARNING, timeline=number, code=error.code)
        return None


def _stretch(name: BlobName, segment_size: int) -> tuple[int, Lsn, Lsn] | None:
    """Timeline, start and end of the log in the blob of this name; None when it holds none.

    Raises InvalidInput for a name that this archive cannot have.
    """
    _, item = layout.parse_wal(name)
    if isinstance(item, WalPiece):
        if item.stop > segment_size:
            raise WalFileNameInvalid(f"{item} ends behind its segment of {segment_size} bytes")
        begin = segment_start(item.name, segment_size)
        return item.timeline, begin + item.start, begin + item.stop
    if item.kind is not WalFileKind.SEGMENT:
        return None
    begin = segment_start(item, segment_size)
    return item.timeline, begin, begin + segment_size


def _told_segment_size(info: BlobInfo) -> int | None:
    """None when it is no whole segment, or tells what no segment's size can be."""
    told = WalMetadata.from_blob(info.metadata)
    try:
        _, item = layout.parse_wal(info.name)
        if told is None or isinstance(item, WalPiece) or item.kind is not WalFileKind.SEGMENT:
            return None
        segment_start(item, told.size)
    except InvalidInput:
        return None
    return told.size
