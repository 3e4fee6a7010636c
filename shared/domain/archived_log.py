"""The archive as recovery reads it: segment by segment, each from its first byte on.

What is missing of a segment is read as zeros, which PostgreSQL takes for the end of the WAL. So of
a segment only the bytes before its first hole count, and nothing behind a segment that has one.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Final

from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.domain.wal_inventory import ArchivedWal, ListedArchive

NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HeldSegment:
    """Bytes [start, end) are in `blobs`: in the whole segment, or else in pieces.

    `end` is where the first hole begins: at `start` when the beginning is missing.
    """

    start: Lsn
    end: Lsn
    blobs: tuple[ArchivedWal, ...]


@dataclass(frozen=True, slots=True)
class TimelineLog:
    """One timeline: its segments by position, of each where the run without a hole ends that it is
    in, and its newest commit; all blobs and restore points by position; and where those blobs
    begin that lost their metadata.
    """

    segments: Sequence[HeldSegment]
    run_ends: Sequence[Lsn]
    newest: Sequence[datetime]
    blobs: Sequence[ArchivedWal]
    points: Sequence[RestorePoint]
    untold: Sequence[Lsn]

    def run_from(self, start: Lsn) -> Lsn | None:
        """The end of the log without a hole from the segment on that begins at `start`; None when
        there is nothing of that segment.
        """
        at = self._at(start)
        held = at < len(self.segments) and self.segments[at].start == start
        return self.run_ends[at] if held else None

    def goes_on_at(self, start: Lsn) -> bool:
        """Whether there is anything of the segment that begins at `start`, or of a later one."""
        return self.blobs[-1].start >= start

    def beyond(self, lsn: Lsn, segment_start: Lsn) -> ArchivedWal | None:
        """The first blob with bytes at `lsn`, which is in the segment given, or behind it."""
        at = bisect_left(self.blobs, segment_start, key=lambda blob: blob.start)
        return next((blob for blob in islice(self.blobs, at, None) if blob.end > lsn), None)

    def between(self, start: Lsn, end: Lsn) -> Sequence[HeldSegment]:
        """The segments that begin in [start, end)."""
        return self.segments[self._at(start) : self._at(end)]

    def since(self, start: Lsn, end: Lsn, time: datetime) -> Iterator[HeldSegment]:
        """Those of them that hold a commit of this time or later."""
        for at in range(self._at(start), self._at(end)):
            if self.newest[at] >= time:
                yield self.segments[at]

    def backwards(self, start: Lsn, end: Lsn) -> Iterator[HeldSegment]:
        """Those of them that hold a commit, the last first."""
        for at in range(self._at(end) - 1, self._at(start) - 1, -1):
            if self.newest[at] > NEVER:
                yield self.segments[at]

    def points_between(self, start: Lsn, end: Lsn) -> Sequence[RestorePoint]:
        first, last = (bisect_left(self.points, at, key=lambda one: one.lsn) for at in (start, end))
        return self.points[first:last]

    def untold_between(self, start: Lsn, end: Lsn) -> bool:
        """Whether a blob that begins in [start, end) lost its metadata."""
        return bisect_left(self.untold, start) < bisect_left(self.untold, end)

    def _at(self, lsn: Lsn) -> int:
        return bisect_left(self.segments, lsn, key=lambda segment: segment.start)


Logs = Mapping[int, TimelineLog]
"""The log of each timeline that the archive has any of."""


def segment_floor(lsn: Lsn, segment_size: int) -> Lsn:
    """Where the segment of the byte at `lsn` begins."""
    return Lsn(lsn - lsn % segment_size)


def archived_logs(archive: ListedArchive) -> Logs:
    blobs = sorted(
        archive.items, key=lambda blob: (blob.timeline, blob.start, -blob.end, not blob.told)
    )
    return {
        timeline: _timeline_log(tuple(of_timeline), archive.segment_size)
        for timeline, of_timeline in groupby(blobs, key=lambda blob: blob.timeline)
    }


def _timeline_log(blobs: Sequence[ArchivedWal], segment_size: int) -> TimelineLog:
    segments = [
        _held(Lsn(number * segment_size), segment_size, tuple(of_segment))
        for number, of_segment in groupby(blobs, key=lambda blob: blob.start // segment_size)
    ]
    return TimelineLog(
        segments=segments,
        run_ends=_run_ends(segments),
        newest=[max(map(newest_commit, one.blobs), default=NEVER) for one in segments],
        blobs=blobs,
        points=sorted({point for blob in blobs for point in blob.points}),
        untold=[blob.start for one in segments for blob in one.blobs if not blob.told],
    )


def newest_commit(blob: ArchivedWal) -> datetime:
    """The last commit need not be the newest: clocks go back."""
    return max(blob.first_commit or NEVER, blob.last_commit or NEVER)


def _held(start: Lsn, segment_size: int, blobs: tuple[ArchivedWal, ...]) -> HeldSegment:
    """`blobs` are by start, and the wider first."""
    first = blobs[0]
    if first.start == start and first.end - start >= segment_size:
        return HeldSegment(start, first.end, (first,))
    end = start
    cover = []
    for blob in blobs:
        if blob.start > end:
            break
        cover.append(blob)
        end = max(end, blob.end)
    return HeldSegment(start, end, tuple(cover))


def _run_ends(segments: Sequence[HeldSegment]) -> Sequence[Lsn]:
    return [*_run_ends_backwards(segments)][::-1]


def _run_ends_backwards(segments: Sequence[HeldSegment]) -> Iterator[Lsn]:
    next_start, next_end = None, Lsn(0)
    for segment in reversed(segments):
        if segment.end != next_start:
            next_end = segment.end
        next_start = segment.start
        yield next_end
