"""How far the copy in the second region is, and which backups are whole there.

Azure replicates asynchronously and in no order, so that a blob says nothing about those written
before it. What it promises is one time for the whole account: every write before the Last Sync
Time can be read in the secondary. All that is geo-safe is so by that time and by when storage
itself says that each blob was written.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Final

from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding
from shared.domain.lsn import Lsn

# Both times have whole seconds, and come from clocks of different machines of one service, for
# whose agreement nobody vouches. Copies lag by minutes: one more is no loss.
CLOCK_MARGIN: Final = timedelta(minutes=1)
# Of what is missing, a finding tells so much.
_TOLD: Final = 3


class ReplicationState(StrEnum):
    """As Azure's service statistics have it. BOOTSTRAP: a new secondary is being filled."""

    LIVE = "live"
    BOOTSTRAP = "bootstrap"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class GeoReplication:
    """What the account says of its secondary; no `last_sync_time` until it was filled once."""

    state: ReplicationState
    last_sync_time: datetime | None = None


class CopyState(StrEnum):
    """Of one blob, by Azure's object replication; nothing is said before it was tried."""

    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Artefact:
    """A blob that a backup needs; `written` None means that it is not there."""

    name: str
    written: datetime | None
    copied: CopyState | None = None


@dataclass(frozen=True, slots=True)
class ArchivedPiece:
    """A blob that holds the WAL from `start` up to before `end`."""

    start: Lsn
    end: Lsn
    artefact: Artefact


@dataclass(frozen=True, slots=True)
class NeededWal:
    """Without `archived`, the backup brought the WAL itself: what the archive holds of it must be
    safe, but nothing must be there.
    """

    start: Lsn
    end: Lsn
    pieces: Sequence[ArchivedPiece]
    archived: bool


@dataclass(frozen=True, slots=True)
class BackupCopy:
    """Everything that a backup needs but its ancestors: parts, documents, key records, WAL."""

    artefacts: Sequence[Artefact]
    wal: Sequence[NeededWal] = ()

    def all_artefacts(self) -> Iterator[Artefact]:
        yield from self.artefacts
        for needed in self.wal:
            yield from (piece.artefact for piece in needed.pieces)


@dataclass(frozen=True, slots=True)
class PendingBackup:
    """A committed backup that is not known to be whole in the secondary; `parent_safe` is true of
    one that builds on none.
    """

    cluster: ClusterName
    label: BackupLabel
    committed_at: datetime
    parent: BackupLabel | None = None
    parent_safe: bool = True


@dataclass(frozen=True, slots=True)
class SeenBackup:
    """A pending backup of which every blob was looked at."""

    backup: PendingBackup
    missing: tuple[str, ...]
    failed: tuple[str, ...] = ()


def is_safe(written: datetime | None, last_sync_time: datetime) -> bool:
    """Whether what storage says it received then is surely in the secondary."""
    return written is not None and written + CLOCK_MARGIN < last_sync_time


def wal_safe_through(pieces: Iterable[ArchivedPiece], start: Lsn, last_sync_time: datetime) -> Lsn:
    """From `start` on, how far the log is in the secondary without a gap; `start` for not at all.

    Several blobs may hold the same stretch: one of them is enough.
    """
    safe = (one for one in pieces if is_safe(one.artefact.written, last_sync_time))
    through = start
    for piece in sorted(safe, key=lambda one: (one.start, one.end)):
        if piece.start > through:
            break
        through = max(through, piece.end)
    return through


def not_yet_safe(copy: BackupCopy, last_sync_time: datetime) -> tuple[str, ...]:
    """What of it is not proven to be in the secondary; empty when all is."""
    missing = [one.name for one in copy.artefacts if not is_safe(one.written, last_sync_time)]
    for needed in copy.wal:
        missing += _wal_not_yet_safe(needed, last_sync_time)
    return tuple(missing)


def failed_copies(copy: BackupCopy) -> tuple[str, ...]:
    """What object replication could not copy."""
    return tuple(one.name for one in copy.all_artefacts() if one.copied is CopyState.FAILED)


def worth_a_look(pending: Iterable[PendingBackup], last_sync_time: datetime) -> list[PendingBackup]:
    """Those whose documents may be in the secondary, parents before their children.

    By the worker's clock: one that is wrong delays a look or makes one in vain, and proves nothing.
    """
    ready = (one for one in pending if is_safe(one.committed_at, last_sync_time))
    return sorted(ready, key=lambda one: (one.label, one.cluster))


def now_safe(seen: Iterable[SeenBackup]) -> list[PendingBackup]:
    """Those that are whole in the secondary, with all that they build on.

    One of which object replication failed is not called safe, and so it stays in sight.
    """
    safe: dict[tuple[ClusterName, BackupLabel], PendingBackup] = {}
    for one in sorted(seen, key=lambda item: item.backup.label):
        backup = one.backup
        below = backup.parent_safe or (backup.cluster, backup.parent) in safe
        if below and not one.missing and not one.failed:
            safe[backup.cluster, backup.label] = backup
    return list(safe.values())


def judge_lag(
    state: ReplicationState | None,
    last_sync_time: datetime | None,
    allowed: timedelta,
    now: datetime,
) -> list[Finding]:
    """`state` None means that the secondary could not be asked; the time is the last one known."""
    if last_sync_time is not None and now - last_sync_time <= allowed:
        return []
    told = "cannot be asked" if state is None else f"is {state}"
    evidence = {"state": state.value if state else "unknown"}
    if last_sync_time is None:
        fact = f"the secondary {told} and tells no last sync time"
        return [Finding(FindingCode.GEO_BEHIND, "secondary", now, fact, evidence)]
    minutes = int((now - last_sync_time).total_seconds() // 60)
    fact = f"the secondary {told}; its last sync time is {minutes} min ago"
    evidence |= {"last_sync_time": last_sync_time.isoformat(), "minutes": str(minutes)}
    return [Finding(FindingCode.GEO_BEHIND, "secondary", last_sync_time, fact, evidence)]


def judge_backups(
    pending: Iterable[PendingBackup],
    seen: Iterable[SeenBackup],
    allowed: timedelta,
    now: datetime,
) -> list[Finding]:
    """Of one cluster's backups that are still not safe: those that should be, and failed copies."""
    by_label = {one.backup.label: one for one in seen}
    waiting = sorted(pending, key=lambda one: one.committed_at)
    late = list(takewhile(lambda one: one.committed_at + allowed < now, waiting))
    failed = [_copy_failed(one, now) for _, one in sorted(by_label.items()) if one.failed]
    return [*failed, *([_overdue(late, by_label.get(late[0].label), allowed)] if late else [])]


def _wal_not_yet_safe(needed: NeededWal, last_sync_time: datetime) -> list[str]:
    if not needed.archived:
        artefacts = (piece.artefact for piece in needed.pieces)
        return [one.name for one in artefacts if not is_safe(one.written, last_sync_time)]
    through = wal_safe_through(needed.pieces, needed.start, last_sync_time)
    return [] if through >= needed.end else [f"wal from {through} to {needed.end}"]


def _copy_failed(seen: SeenBackup, now: datetime) -> Finding:
    label, names = seen.backup.label.text, seen.failed
    fact = f"object replication failed for {len(names)} blobs of backup {label}"
    evidence = {"label": label, "blobs": ", ".join(names[:_TOLD]), "count": str(len(names))}
    return Finding(FindingCode.OBJECT_REPLICATION_FAILED, label, now, fact, evidence)


def _overdue(
    late: Sequence[PendingBackup], oldest: SeenBackup | None, allowed: timedelta
) -> Finding:
    first = late[0]
    hours = allowed.total_seconds() / 3600
    fact = (
        f"{len(late)} backups are not whole in the secondary {hours:g} h after they were "
        f"committed; the oldest is {first.label}"
    )
    evidence = {"count": str(len(late)), "label": first.label.text}
    if oldest and oldest.missing:
        evidence["missing"] = ", ".join(oldest.missing[:_TOLD])
    since = first.committed_at + allowed
    return Finding(FindingCode.GEO_OVERDUE, "backups", since, fact, evidence)
