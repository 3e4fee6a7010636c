"""A small world of timelines, archive and backups, and a PostgreSQL that recovers in it.

The oracle of the recovery planner: it knows every record and reads file by file, as xlogrecovery.c
does, what the planner computes from names and metadata. One record fills one unit of log.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise

from shared.domain.lsn import Lsn
from shared.domain.recovery_plan import BackupCandidate
from shared.domain.recovery_target import (
    RecoveryTarget,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
)
from shared.domain.restore_point import RestorePoint
from shared.domain.timeline import Branch, TimelineHistory
from shared.domain.wal_inventory import ArchivedWal, ListedArchive
from shared.domain.wal_segment import segment_name

SEGMENT = 1 << 20
UNITS = 4  # of a segment
UNIT = SEGMENT // UNITS
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

Pieces = Sequence[tuple[int, int]]


def lsn(unit: int) -> Lsn:
    return Lsn(unit * UNIT)


@dataclass(frozen=True)
class Line:
    """A timeline that left its parent at unit `begin`; `points` are the units of restore points,
    `quiet` those of records without a time. What is left are commits.
    """

    number: int
    parent: int | None
    begin: int
    points: Mapping[int, str] = field(default_factory=dict)
    quiet: frozenset[int] = frozenset()


@dataclass(frozen=True)
class World:
    """`files`: by timeline and segment number the units, counted within it, that are archived."""

    lines: Mapping[int, Line]
    files: Mapping[tuple[int, int], Pieces]
    backups: Sequence[BackupCandidate] = ()
    without_history: frozenset[int] = frozenset()

    def path(self, number: int) -> list[Line]:
        """Oldest first."""
        line = self.lines[number]
        return [*(self.path(line.parent) if line.parent else []), line]

    def history(self, number: int) -> TimelineHistory:
        path = self.path(number)
        branches = (Branch(line.number, lsn(after.begin)) for line, after in pairwise(path))
        return TimelineHistory(number, tuple(branches))

    def owner(self, number: int, unit: int) -> Line:
        """The timeline on which this unit of a timeline's log was written."""
        return next(line for line in reversed(self.path(number)) if line.begin <= unit)

    def time(self, number: int, unit: int) -> datetime | None:
        """Of the commit; None when it is none. Unique, and rising along every path."""
        owner = self.owner(number, unit)
        if unit in owner.quiet or unit in owner.points:
            return None
        return NOON + timedelta(seconds=10 * unit + owner.number)

    @cached_property
    def archive(self) -> ListedArchive:
        items = [
            self._blob(number, segment * UNITS + start, segment * UNITS + end)
            for (number, segment), pieces in self.files.items()
            for start, end in pieces
        ]
        known = {
            number: self.history(number)
            for number in self.lines
            if number not in self.without_history
        }
        return ListedArchive(SEGMENT, tuple(items), known)

    def _blob(self, number: int, start: int, end: int) -> ArchivedWal:
        units = range(start, end)
        commits = [time for unit in units if (time := self.time(number, unit)) is not None]
        owners = {unit: self.owner(number, unit) for unit in units}
        points = tuple(
            RestorePoint(lsn(unit), owner.points[unit], NOON)
            for unit, owner in owners.items()
            if unit in owner.points
        )
        first, last = (commits[0], commits[-1]) if commits else (None, None)
        return ArchivedWal(number, lsn(start), lsn(end), first, last, points, end - start)


def backup(number: int, start: int, stop: int, *, included: bool = True) -> BackupCandidate:
    """From before unit `start` to before unit `stop`; finished before the next record."""
    return BackupCandidate(
        label=f"{number}-{start}-{stop}-{'with' if included else 'without'}",
        timeline=number,
        start_lsn=lsn(start),
        stop_lsn=lsn(stop),
        finished_at=NOON + timedelta(seconds=10 * stop - 4),
        segment_size=SEGMENT,
        wal_included=included,
        next_xid=stop,
        stored_bytes=1,
        plain_bytes=1,
        suspect=False,
    )


class RecoveryFailed(Exception):
    """PostgreSQL ended with an error, or went on into another branch, which is worse."""


@dataclass
class Recovery:
    """One recovery. `opened` are the names of the archive's files that were read, in order;
    `position` is the first unit that was not replayed.
    """

    world: World
    backup: BackupCandidate
    timeline: int
    target: RecoveryTarget | None
    opened: list[str] = field(default_factory=list)
    lines: set[int] = field(default_factory=set)
    position: int = 0

    def run(self) -> "Recovery":
        """Raises RecoveryFailed. Without a target: as far as there is log."""
        self._check_history()
        self.position = self.backup.start_lsn // UNIT
        if isinstance(self.target, ToImmediate) and self.backup.wal_included:
            self.position = self.backup.stop_lsn // UNIT  # no archive is asked
            return self
        while True:
            file = self._open(self.position // UNITS)
            if file is None:
                return self._ended()
            number, end = file
            self.lines.add(number)
            while self.position < end:
                if self._stops(number):
                    return self
            if self.position % UNITS:  # zeros follow
                return self._ended()

    def _check_history(self) -> None:
        known = self.world.archive.histories
        if self.timeline not in {*known, 1, self.backup.timeline}:
            raise RecoveryFailed("recovery target timeline does not exist")
        path = [line.number for line in self._path()]
        if self.backup.timeline not in path:
            raise RecoveryFailed("not a child of this server's history")
        for line in self._path()[path.index(self.backup.timeline) + 1 :][:1]:
            if lsn(line.begin) < self.backup.stop_lsn:
                raise RecoveryFailed("does not contain the minimum recovery point")

    def _path(self) -> list[Line]:
        known = self.timeline in {*self.world.archive.histories, 1}
        return self.world.path(self.timeline) if known else [Line(self.timeline, None, 0)]

    def _open(self, segment: int) -> tuple[int, int] | None:
        """The timeline of the file, and where what can be read of it ends."""
        for line in reversed(self._path()):
            if line.begin // UNITS > segment or line.number < max(self.lines, default=0):
                continue
            pieces = self.world.files.get((line.number, segment), ())
            cover = _cover(pieces)
            carried = self._carried(line.number, segment)
            if carried is not None and segment * UNITS + cover <= carried:
                if cover == UNITS:
                    self.opened.append(segment_name(line.number, lsn(segment * UNITS), SEGMENT))
                return line.number, carried
            if pieces:
                if not cover:
                    raise RecoveryFailed("no piece holds the beginning")
                self.opened.append(segment_name(line.number, lsn(segment * UNITS), SEGMENT))
                return line.number, segment * UNITS + cover
            if any(number == line.number and at > segment for number, at in self._held()):
                raise RecoveryFailed("missing, and later WAL of its timeline is there")
        return None

    def _carried(self, number: int, segment: int) -> int | None:
        """Where the segment ends that the backup has in its pg_wal."""
        own, stop = self.backup, self.backup.stop_lsn // UNIT
        first, last = own.start_lsn // SEGMENT, (own.stop_lsn - 1) // SEGMENT
        if not own.wal_included or number != own.timeline or not first <= segment <= last:
            return None
        return min(stop, (segment + 1) * UNITS)

    def _held(self) -> Iterator[tuple[int, int]]:
        return (key for key, pieces in self.world.files.items() if pieces)

    def _stops(self, number: int) -> bool:
        """Read the record at the position; True when recovery ends before or after it."""
        unit = self.position
        owner = self.world.owner(number, unit)
        time = self.world.time(number, unit)
        match self.target:
            case ToTime(at, inclusive) if time is not None:
                if time > at or (time == at and not inclusive):
                    return self._consistent()
            case ToLsn(at, False) if lsn(unit) >= at:
                return self._consistent()
        if owner != self.world.owner(self.timeline, unit):
            raise RecoveryFailed("a record of another branch")
        self.position += 1
        match self.target:
            case ToImmediate():
                return lsn(self.position) >= self.backup.stop_lsn
            case ToLsn(at, True) if lsn(unit) >= at:
                return self._consistent()
            case ToName(name) if owner.points.get(unit) == name:
                return self._consistent()
        return False

    def _consistent(self) -> bool:
        if lsn(self.position) < self.backup.stop_lsn:
            raise RecoveryFailed("stop point is before consistent recovery point")
        return True

    def _ended(self) -> "Recovery":
        if lsn(self.position) < self.backup.stop_lsn:
            raise RecoveryFailed("WAL ends before end of online backup")
        if self.target is not None and not isinstance(self.target, ToLatest):
            raise RecoveryFailed("recovery ended before configured recovery target was reached")
        if self.target is not None and self._more_follows():
            raise RecoveryFailed("that was not the latest")
        return self

    def _more_follows(self) -> bool:
        """Whether the archive has log of the path behind where it ended."""
        path = self._path()
        for line, after in zip(path, [*path[1:], None], strict=True):
            for number, segment in self._held():
                for start, end in self.world.files[number, segment]:
                    units = range(segment * UNITS + start, segment * UNITS + end)
                    if (
                        number == line.number
                        and segment >= line.begin // UNITS
                        and any(
                            unit >= self.position and (after is None or unit < after.begin)
                            for unit in units
                        )
                    ):
                        return True
        return False


def _cover(pieces: Pieces) -> int:
    end = 0
    for start, stop in sorted(pieces):
        if start > end:
            break
        end = max(end, stop)
    return end
