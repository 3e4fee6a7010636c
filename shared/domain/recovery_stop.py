"""Where a replay meets its target, as far as the archive's metadata can tell before it begins.

PostgreSQL (xlogrecovery.c) stops at the first record that meets the target, and ends with an error
when that lies before the backup's end, or when there is none. Metadata tells of a blob its first
and last commit and its restore points; where it says too little, the answer is a warning.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, assert_never

from shared.domain.archived_log import Logs, newest_commit, segment_floor
from shared.domain.lsn import Lsn
from shared.domain.recovery_path import Leg, Reach
from shared.domain.recovery_target import (
    RecoveryTarget,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
)
from shared.domain.restore_point import RestorePoint
from shared.domain.wal_inventory import ArchivedWal

_XIDS: Final = 1 << 32
_HALF_THE_XIDS: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Stop:
    """The replay reads nothing at `end` or behind it; what is there from `bound` on cannot change
    where it stops.
    """

    bound: Lsn
    end: Lsn
    warnings: tuple[str, ...] = ()


def stop_of(target: RecoveryTarget, reach: Reach, logs: Logs, *, named: bool) -> Stop | str:
    """Where, or why nowhere. `named`: the backup was chosen by a person."""
    match target:
        case ToTime():
            return _at_time(target, reach, logs)
        case ToLsn():
            return _at_lsn(target, reach)
        case ToXid(xid):
            return _at_xid(xid, reach, named=named)
        case ToName(name):
            return _at_name(name, reach, logs)
        case ToImmediate():
            return Stop(reach.backup.stop_lsn, reach.backup.stop_lsn)
        case ToLatest():
            return _at_latest(reach)
    assert_never(target)


def written(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def last_commit(reach: Reach, logs: Logs) -> datetime | None:
    """The last one by position that is known: clocks may go backwards (W23)."""
    blob = _last_with_commits(reach, logs)
    return blob.last_commit if blob else None


def tail_unknown(reach: Reach, logs: Logs) -> bool:
    """Whether there is a blob without its metadata behind the last known commit."""
    last = _last_with_commits(reach, logs)
    known = last.start if last else Lsn(0)
    return any(
        logs[leg.timeline].untold_between(max(leg.start, known), leg.end)
        for leg in reach.legs
        if leg.end > known
    )


def restore_points(reach: Reach, logs: Logs) -> set[RestorePoint]:
    """Those that a replay meets, from where it begins."""
    return {
        point
        for leg in _all_legs(reach, logs)
        for point in logs[leg.timeline].points_between(
            max(leg.start, reach.backup.start_lsn), leg.end
        )
    }


def archived_through(reach: Reach, logs: Logs) -> str:
    """The sentence that every refusal for want of WAL ends with."""
    if reach.beyond_backup:
        commit = last_commit(reach, logs)
        told = f"last commit {written(commit)}" if commit else "without a known commit"
        said = f"timeline {reach.timeline} is archived through {reach.end}, {told}"
    else:
        said = f"no WAL is archived behind its end at {reach.end}"
    return said + _gap(reach)


def _at_time(target: ToTime, reach: Reach, logs: Logs) -> Stop | str:
    if reach.backup.finished_at > target.time:
        return "ended after the target"

    def is_late(blob: ArchivedWal) -> bool:
        newest = newest_commit(blob)
        return newest > target.time or (newest == target.time and not target.inclusive)

    if any(is_late(blob) for blob in _of_the_backup(reach, logs)):
        return "a commit during it has a later time than the target"
    for leg in reach.legs:
        for segment in logs[leg.timeline].since(leg.start, leg.end, target.time):
            for blob in segment.blobs:
                if _counts(blob, leg, reach) and is_late(blob):
                    return _within(blob, leg, reach)
    if reach.beyond_backup and tail_unknown(reach, logs):
        warning = (
            "it is not known whether there is a commit after the target, without which PostgreSQL "
            "ends with an error: the archive lost the metadata of its last WAL"
        )
        return Stop(reach.end, reach.end, (warning,))
    return archived_through(reach, logs)


def _at_lsn(target: ToLsn, reach: Reach) -> Stop | str:
    if target.lsn < reach.backup.stop_lsn:
        return "ended behind the target"
    if target.lsn >= reach.end:
        return f"the log ends before the target: it goes through {reach.end}" + _gap(reach)
    end = segment_floor(target.lsn, reach.backup.segment_size) + reach.backup.segment_size
    warning = (
        "the archive ends with the target's segment, of which the last part may be empty: if no "
        "record begins at the target or behind it, PostgreSQL ends with an error"
    )
    # What stops it is the first record that begins at the target or behind it.
    bound = target.lsn + (1 if target.inclusive else 0)
    return Stop(bound, min(end, reach.end), (warning,) if reach.end == end else ())


def _gap(reach: Reach) -> str:
    return f"; a gap follows, from {reach.gap.start} to {reach.gap.end}" if reach.gap else ""


def _at_xid(xid: int, reach: Reach, *, named: bool) -> Stop | str:
    next_xid = reach.backup.next_xid
    if next_xid is None and not named:
        return "does not say which transactions it holds, so only --label chooses it"
    if next_xid is not None and not _is_ahead(xid, next_xid):
        return f"transaction {xid} may have ended before its end"
    if not reach.beyond_backup:
        return f"no WAL is archived behind its end at {reach.end}" + _gap(reach)
    warning = (
        f"nobody knows whether transaction {xid} ended in the archived WAL: if not, PostgreSQL "
        f"ends with an error at {reach.end}"
    )
    return Stop(reach.end, reach.end, (warning,))


def _is_ahead(xid: int, next_xid: int) -> bool:
    """Whether the transaction can only come from `next_xid`, a 64-bit number, on.

    Of an `xid` without its epoch as TransactionIdPrecedesOrEquals (transam.c) has it: 32-bit
    numbers in a circle. One that is a whole round ahead would be taken for one of this round.
    """
    if xid >= _XIDS:
        return next_xid <= xid < next_xid + _XIDS
    return (xid - next_xid) % _XIDS < _HALF_THE_XIDS


def _at_name(name: str, reach: Reach, logs: Logs) -> Stop | str:
    stop_lsn = reach.backup.stop_lsn
    points = sorted(point for point in restore_points(reach, logs) if point.name == name)
    if points and points[0].lsn < stop_lsn:
        return f"a restore point of this name, at {points[0].lsn}, lies before its end"
    untold = any(
        logs[leg.timeline].untold_between(leg.start, leg.end) for leg in _all_legs(reach, logs)
    )
    unknown = "some archived WAL lost its metadata, and may hold a restore point of this name"
    if not points:
        if reach.beyond_backup and untold:
            return Stop(reach.end, reach.end, (f"{unknown}; none other is known",))
        return "no restore point of this name follows it in the archive"
    warnings = [unknown] if untold else []
    if len(points) > 1:
        found = ", ".join(f"{point.lsn} of {written(point.time)}" for point in points)
        warnings.append(f"PostgreSQL stops at the first restore point of this name: {found}")
    size = reach.backup.segment_size
    end = segment_floor(points[0].lsn, size) + size
    return Stop(points[0].lsn + 1, min(end, reach.end), tuple(warnings))


def _at_latest(reach: Reach) -> Stop | str:
    if reach.gap:
        return f"a gap in the archive, from {reach.gap.start} to {reach.gap.end}"
    if not reach.enters_timeline:
        return f"the archive has no log of timeline {reach.timeline}"
    if reach.beyond_backup:
        return Stop(reach.end, reach.end)
    warning = f"no WAL is archived behind the backup: this is its own end, at {reach.end}"
    return Stop(reach.end, reach.end, (warning,))


def _within(blob: ArchivedWal, leg: Leg, reach: Reach) -> Stop:
    """It stops somewhere in the blob, which is read up to the end of its segment."""
    size = reach.backup.segment_size
    return Stop(blob.end, min(segment_floor(blob.start, size) + size, leg.end))


def _all_legs(reach: Reach, logs: Logs) -> Iterator[Leg]:
    """From the backup's start on: of some of it PostgreSQL may read what the backup carries."""
    backup = reach.backup
    start = segment_floor(backup.start_lsn, backup.segment_size)
    end = reach.legs[0].start if reach.legs else backup.stop_lsn
    if start < end and backup.timeline in logs:
        yield Leg(backup.timeline, start, end)
    yield from reach.legs


def _counts(blob: ArchivedWal, leg: Leg, reach: Reach) -> bool:
    """Whether its commits are ones that a replay meets behind the backup's end.

    The last file of a path may go on where another branch begins.
    """
    return blob.end > reach.backup.stop_lsn and blob.end <= leg.end


def _last_with_commits(reach: Reach, logs: Logs) -> ArchivedWal | None:
    for leg in reversed(reach.legs):
        for segment in logs[leg.timeline].backwards(leg.start, leg.end):
            for blob in reversed(segment.blobs):
                if blob.last_commit is not None and _counts(blob, leg, reach):
                    return blob
    return None


def _of_the_backup(reach: Reach, logs: Logs) -> Iterator[ArchivedWal]:
    """All of whose records are replayed before the backup's end."""
    backup = reach.backup
    for leg in _all_legs(reach, logs):
        for segment in logs[leg.timeline].between(leg.start, min(leg.end, backup.stop_lsn)):
            for blob in segment.blobs:
                if blob.start >= backup.start_lsn and blob.end <= backup.stop_lsn:
                    yield blob
