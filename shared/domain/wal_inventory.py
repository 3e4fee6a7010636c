"""What the WAL archive holds: continuous ranges per timeline, gaps, and how far it reaches.

Pure arithmetic over what listings tell. Order and repetition of what is added do not matter, so
a segment that fills a gap later heals it (W04). Positions decide, never times (W23): a server's
clock may be wrong.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, pairwise
from typing import Final, Self

from shared.domain.field_types import LsnText
from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.domain.timeline import TimelineHistory

# A range keeps its newest: who writes thousands finds the older ones by their LSN.
POINTS_KEPT: Final = 100


@dataclass(frozen=True, slots=True, order=True)
class ArchivedWal:
    """One blob that holds log: bytes [start, end) of a timeline. A whole segment, or a piece.

    Commit times are those of the first and last commit or abort record that begins in it. Not
    `told`: the blob lost its metadata, so nobody knows whether there are any.
    """

    timeline: int
    start: LsnText
    end: LsnText
    first_commit: datetime | None = None
    last_commit: datetime | None = None
    points: tuple[RestorePoint, ...] = ()
    stored_bytes: int = 0
    told: bool = True


@dataclass(frozen=True, slots=True)
class Commits:
    """First and last commit of bytes [start, end): those of one blob, as its writer saw them."""

    start: LsnText
    end: LsnText
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class WalRange:
    """Bytes [start, end) of a timeline without a hole.

    `earliest` and `latest` are the commits of the blobs that hold the first and the last of them.
    `points` are the newest, by position. `stored_bytes` is what the blobs take, but of blobs that
    repeat what the range had already nothing: it depends on the order in which they came.
    """

    timeline: int
    start: LsnText
    end: LsnText
    earliest: Commits | None = None
    latest: Commits | None = None
    points: tuple[RestorePoint, ...] = ()
    stored_bytes: int = field(default=0, compare=False)

    @property
    def first_commit(self) -> datetime | None:
        return self.earliest.first if self.earliest else None

    @property
    def last_commit(self) -> datetime | None:
        return self.latest.last if self.latest else None

    @property
    def plain_bytes(self) -> int:
        """Bytes of log, each counted once whatever number of blobs hold it."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class WalInventory:
    """Ranges by timeline and start; no two of a timeline overlap or touch."""

    ranges: tuple[WalRange, ...] = ()

    def adding(self, items: Iterable[ArchivedWal]) -> Self:
        """Order-free and idempotent: the result is a function of the set of items ever added."""
        everything = chain(self.ranges, map(_range_of, items))
        # The wider first, so that what follows within it repeats; a known range before its equal.
        ordered = sorted(everything, key=lambda one: (one.timeline, one.start, -one.end))
        return type(self)(tuple(_merged(ordered)))

    def since(self, starts: Mapping[int, Lsn]) -> Self:
        """Without what lies below these positions of their timelines. Of a range that is cut the
        stored bytes are estimated, and its first commit is not known any more.
        """
        cut = (_cut(one, starts.get(one.timeline, one.start)) for one in self.ranges)
        return type(self)(tuple(one for one in cut if one is not None))

    @property
    def timelines(self) -> tuple[int, ...]:
        return tuple(sorted({one.timeline for one in self.ranges}))

    def of(self, timeline: int) -> tuple[WalRange, ...]:
        """The timeline's ranges, oldest position first."""
        return tuple(one for one in self.ranges if one.timeline == timeline)

    def gaps(self, timeline: int) -> tuple[tuple[Lsn, Lsn], ...]:
        """Holes [from, to) between the timeline's ranges, oldest position first."""
        return tuple((left.end, right.start) for left, right in pairwise(self.of(timeline)))

    def range_at(self, timeline: int, lsn: Lsn) -> WalRange | None:
        """The range that reaches `lsn`: holds the byte there, or ends exactly before it."""
        ranges = self.of(timeline)
        at = bisect_right(ranges, lsn, key=lambda one: one.start) - 1
        return ranges[at] if at >= 0 and lsn <= ranges[at].end else None

    def through(self, timeline: int, since: Lsn | None = None) -> WalRange | None:
        """How far the log is archived without a hole: the `end` and `last_commit` of the range
        that reaches `since`, where the newest backup starts.

        Without `since`, of the timeline's first range. A segment that arrived ahead of the one
        before it never counts (W19).
        """
        if since is not None:
            return self.range_at(timeline, since)
        return next(iter(self.of(timeline)), None)

    def newest(self, timeline: int) -> WalRange | None:
        """The range furthest on, whatever is missing before it."""
        return next(reversed(self.of(timeline)), None)


@dataclass(frozen=True, slots=True)
class ListedArchive:
    """What a restore may plan with: what the archive holds, and how its timelines branch."""

    segment_size: int
    items: tuple[ArchivedWal, ...]
    histories: Mapping[int, TimelineHistory]


def _range_of(item: ArchivedWal) -> WalRange:
    commits = None
    if item.first_commit and item.last_commit:
        commits = Commits(item.start, item.end, item.first_commit, item.last_commit)
    points = _newest(item.points)
    return WalRange(
        item.timeline, item.start, item.end, commits, commits, points, item.stored_bytes
    )


def _cut(one: WalRange, start: Lsn) -> WalRange | None:
    if start <= one.start:
        return one
    if start >= one.end:
        return None
    left = (one.end - start) / (one.end - one.start)
    stored = round(one.stored_bytes * left)
    return replace(one, start=start, earliest=None, stored_bytes=stored)


def _merged(ordered: Iterable[WalRange]) -> Iterator[WalRange]:
    current: WalRange | None = None
    for one in ordered:
        if current is None:
            current = one
        elif one.timeline == current.timeline and one.start <= current.end:
            current = _joined(current, one)
        else:
            yield current
            current = one
    if current is not None:
        yield current


def _joined(left: WalRange, right: WalRange) -> WalRange:
    """`right` begins in `left`, or where it ends."""
    adds = right.end > left.end
    return WalRange(
        left.timeline,
        left.start,
        max(left.end, right.end),
        min(_known(left.earliest, right.earliest), key=_begins, default=None),
        max(_known(left.latest, right.latest), key=_reaches, default=None),
        _newest({*left.points, *right.points}),
        left.stored_bytes + (right.stored_bytes if adds else 0),
    )


def _known(*commits: Commits | None) -> list[Commits]:
    return [one for one in commits if one is not None]


def _begins(commits: Commits) -> tuple[Lsn, int, datetime]:
    """Of blobs that begin alike the widest knows best: a piece may end within a commit's record."""
    return commits.start, -commits.end, commits.first


def _reaches(commits: Commits) -> tuple[Lsn, int, datetime]:
    return commits.end, -commits.start, commits.last


def _newest(points: Iterable[RestorePoint]) -> tuple[RestorePoint, ...]:
    return tuple(sorted(set(points))[-POINTS_KEPT:])
