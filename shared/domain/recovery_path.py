"""The way of a recovery through timelines and files: how far a backup can be replayed, from what.

Rules of xlogrecovery.c. For a segment XLogFileReadAnyTLI tries the timelines of the target's
history, the newest first, that begin in this segment or before it: a new timeline's first segment
repeats the old one's bytes up to where it begins. It does not look where a timeline was left, so a
recovery for which the newer file is missing would go on into another branch; here the way ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from shared.domain.archived_log import HeldSegment, Logs, archived_logs, segment_floor
from shared.domain.lsn import Lsn
from shared.domain.timeline import TimelineHistory
from shared.domain.wal_inventory import ListedArchive


@dataclass(frozen=True, slots=True)
class BackupCandidate:
    """What a plan weighs of a backup. `finished_at` is the worker's clock, when all was over.

    `next_xid` is the first 64-bit transaction number that was not given out by then.
    """

    label: str
    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn
    finished_at: datetime
    segment_size: int
    wal_included: bool
    next_xid: int | None
    stored_bytes: int
    plain_bytes: int
    suspect: bool


@dataclass(frozen=True, slots=True)
class WalPart:
    """A stretch of one timeline; without an end it goes on."""

    timeline: int
    start: Lsn
    end: Lsn | None


Path = Sequence[WalPart]
"""A timeline and its ancestors, oldest first; each ends where the next one begins."""


@dataclass(frozen=True, slots=True)
class Leg:
    """Segments of one timeline, in a row: `start` is where the first begins."""

    timeline: int
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True)
class Reach:
    """A backup can be replayed along `path` up to `end`; what of it is archived is in `legs`.

    `path` begins with the backup's timeline. `gap` is what is missing at `end`, when the archive
    holds more of the path behind it.
    """

    backup: BackupCandidate
    path: Path
    legs: tuple[Leg, ...]
    end: Lsn
    gap: WalPart | None

    @property
    def timeline(self) -> int:
        return self.path[-1].timeline

    @property
    def enters_timeline(self) -> bool:
        """Whether a file of the path's newest timeline is read, or the backup is of it."""
        return self.timeline in {self.backup.timeline, *(leg.timeline for leg in self.legs)}

    @property
    def beyond_backup(self) -> bool:
        return self.end > self.backup.stop_lsn


def path_of(history: TimelineHistory) -> Path:
    parts = []
    start = Lsn(0)
    for branch in history.ancestors:
        parts.append(WalPart(branch.timeline, start, branch.switch))
        start = branch.switch
    return (*parts, WalPart(history.timeline, start, None))


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways that there are, by the timeline where they lead, and the log that lies on them."""

    paths: Mapping[int, Path]
    logs: Logs
    segment_size: int

    @classmethod
    def of(cls, archive: ListedArchive, backups: Sequence[BackupCandidate]) -> Self:
        """Timeline 1 needs no history file, and a backup carries that of its own."""
        own = {backup.timeline for backup in backups} | {1}
        histories = {number: TimelineHistory(number) for number in own} | dict(archive.histories)
        paths = {number: path_of(history) for number, history in histories.items()}
        return cls(paths, archived_logs(archive), archive.segment_size)

    def reach(self, backup: BackupCandidate, timeline: int) -> Reach | str:
        """How far the backup can be replayed on the way to the timeline, or why not even to its
        own end.
        """
        path = self.paths[timeline]
        if backup.segment_size != self.segment_size:
            return (
                f"its segments have {backup.segment_size} bytes, the archive's {self.segment_size}"
            )
        own = next((part for part in path if part.timeline == backup.timeline), None)
        if own is None:
            return f"timeline {timeline} does not descend from its timeline {backup.timeline}"
        if own.end is not None and own.end < backup.stop_lsn:
            return f"timeline {timeline} left its timeline {backup.timeline} before its end"
        return _replayed(backup, path[path.index(own) :], self.logs, self.segment_size)


def _replayed(backup: BackupCandidate, path: Path, logs: Logs, segment_size: int) -> Reach | str:
    since = backup.stop_lsn if backup.wal_included else backup.start_lsn
    legs = tuple(_legs(path, logs, segment_floor(since, segment_size), segment_size))
    end = legs[-1].end if legs else since
    if backup.wal_included and end <= backup.stop_lsn:  # the backup itself reaches as far
        legs, end = (), backup.stop_lsn
    gap = _gap(path, logs, end, segment_size)
    if end < backup.stop_lsn:
        return _missing(backup, gap, end)
    return Reach(backup, path, legs, end, gap)


def _missing(backup: BackupCandidate, gap: WalPart | None, end: Lsn) -> str:
    until = min(gap.end or end, backup.stop_lsn) if gap else backup.stop_lsn
    return f"it needs the WAL up to {backup.stop_lsn}, of which {end} to {until} is missing"


def _legs(path: Path, logs: Logs, position: Lsn, segment_size: int) -> Iterator[Leg]:
    """From the segment that begins at `position`."""
    while (part := _opened(path, logs, position, segment_size)) is not None:
        run = logs[part.timeline].run_from(position) or position
        turn = segment_floor(part.end, segment_size) if part.end is not None else None
        if turn is None or not position < turn <= run:
            end = run if part.end is None else min(run, part.end)
            if end > position:
                yield Leg(part.timeline, position, end)
            return
        yield Leg(part.timeline, position, turn)
        position = turn


def _opened(path: Path, logs: Logs, position: Lsn, segment_size: int) -> WalPart | None:
    """The timeline whose file is read for the segment at `position`.

    One that lacks this segment and has a later one is a hole, at which recovery fails.
    """
    for part in reversed(path):
        begun = segment_floor(part.start, segment_size) <= position
        log = logs.get(part.timeline)
        if begun and log is not None and log.goes_on_at(position):
            return part if log.run_from(position) is not None else None
    return None


def _gap(path: Path, logs: Logs, end: Lsn, segment_size: int) -> WalPart | None:
    """What is missing for the log that the archive has of the path behind `end`."""
    segment = segment_floor(end, segment_size)
    for part in path:
        log = logs.get(part.timeline)
        more = log.beyond(end, segment) if log else None
        if more is None or (part.end is not None and max(more.start, end) >= part.end):
            continue
        if more.start > end:
            return WalPart(part.timeline, end, more.start)
        if more.start > segment:  # of the segment at `end` the beginning is missing
            return WalPart(part.timeline, segment, more.start)
    return None


def files_until(reach: Reach, logs: Logs, end: Lsn) -> Iterator[tuple[int, HeldSegment]]:
    """With their timelines, the files of the archive that a replay up to `end` reads, in order.

    Of those before the end of a backup that carries its WAL only what is whole: PostgreSQL takes
    the archive's file rather than the backup's.
    """
    backup = reach.backup
    if backup.wal_included and end <= backup.stop_lsn:
        return
    if backup.wal_included and reach.legs and backup.timeline in logs:
        size = backup.segment_size
        first, last = segment_floor(backup.start_lsn, size), reach.legs[0].start
        for held in logs[backup.timeline].between(first, last):
            if held.end - held.start == size:
                yield backup.timeline, held
    for leg in reach.legs:
        for held in logs[leg.timeline].between(leg.start, min(leg.end, end)):
            yield leg.timeline, held
