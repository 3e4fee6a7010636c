"""How much would be lost if the server burnt down now: the recovery point objective as measured.

Two facts from two sides: how far the archive reaches, by its listing, and how far the server was
at an instant, by its WAL writers' reports. Where the archive has passed a reported position,
everything committed before that report is safe, however long ago the last commit was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from shared.domain.field_types import LsnText
from shared.domain.lsn import Lsn
from shared.domain.wal_inventory import WalInventory, WalRange

# A receiver that gave way to an agent leaves its last word about a slot that nobody uses.
_SLOT_COUNTS: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class SlotState:
    """The replication slot of a receiver. Bytes; `keep_bytes` None means without a limit."""

    name: str
    active: bool
    wal_status: str | None = None
    retained_bytes: int | None = None
    keep_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WriterReport:
    """At `at` the server had written up to `server_lsn` of a timeline; None when nobody knows."""

    writer: Literal["receive", "agent"]
    host: str
    at: datetime
    timeline: int
    server_lsn: LsnText | None = None
    unarchived_bytes: int | None = None
    slot: SlotState | None = None


@dataclass(frozen=True, slots=True)
class BackupBase:
    """A backup to replay from: everything committed before `at` needs no log behind `lsn`.

    `whole`: it also holds the log that makes it consistent, and so stands without the archive.
    """

    timeline: int
    lsn: Lsn
    at: datetime
    whole: bool


@dataclass(frozen=True, slots=True, order=True)
class WalGap:
    """Bytes [start, end) of a timeline that the archive lacks, though the log went on.

    `since` when it was first seen. `reported`: a writer had to skip it, so nothing is under way.
    """

    timeline: int
    start: LsnText
    end: LsnText
    since: datetime
    reported: bool = False

    @property
    def key(self) -> tuple[int, Lsn]:
        """Of one gap, also while it is being filled from its beginning."""
        return self.timeline, self.end

    def __str__(self) -> str:
        return f"timeline {self.timeline} before {self.end}"


@dataclass(frozen=True, slots=True)
class WalFreshness:
    """`protected_at`: the newest known instant before which every commit can be recovered.

    `through_lsn` and `through_commit`: how far the log is archived without a hole from the newest
    backup on. `unarchived_bytes`: what the server had beyond that when it was reported.
    `watched_since`: when this cluster's WAL was looked at for the first time.
    """

    cluster: str
    at: datetime
    watched_since: datetime
    timeline: int | None = None
    through_lsn: LsnText | None = None
    through_commit: datetime | None = None
    protected_at: datetime | None = None
    lag_seconds: float | None = None
    server_lsn: LsnText | None = None
    unarchived_bytes: int | None = None
    reported_at: datetime | None = None
    slot: SlotState | None = None
    gaps: tuple[WalGap, ...] = ()

    def lag_at(self, now: datetime) -> float | None:
        """Seconds; never less than 0, for the clocks of servers differ."""
        if self.protected_at is None:
            return None
        return max(timedelta(), now - self.protected_at).total_seconds()

    @property
    def unprotected_since(self) -> datetime:
        """`protected_at`; of a cluster of which nothing was ever protected, the first look."""
        return self.protected_at or self.watched_since

    @property
    def in_use(self) -> bool:
        """Whether there is any sign of WAL being archived: a cluster may do without."""
        return self.through_lsn is not None or self.reported_at is not None or bool(self.gaps)


@dataclass(frozen=True, slots=True)
class WalSight:
    """All that is known of a cluster's WAL when its freshness is judged.

    `reported_gaps` are what writers had to skip. `previous` is the result of the last time.
    """

    inventory: WalInventory = field(default_factory=WalInventory)
    backup: BackupBase | None = None
    reports: Sequence[WriterReport] = ()
    reported_gaps: Sequence[WalGap] = ()
    previous: WalFreshness | None = None


def freshness(cluster: str, sight: WalSight, now: datetime) -> WalFreshness:
    ranges = replayable(sight.inventory, sight.backup)
    report = max(sight.reports, key=lambda one: one.at, default=None)
    by_timeline = {one.timeline: one for one in ranges}
    current = _current(ranges, report)
    found = WalFreshness(
        cluster=cluster,
        at=now,
        watched_since=sight.previous.watched_since if sight.previous else now,
        timeline=current.timeline if current else None,
        through_lsn=current.end if current else None,
        through_commit=current.last_commit if current else None,
        protected_at=_protected_at(sight, current, by_timeline, now),
        server_lsn=report.server_lsn if report else None,
        unarchived_bytes=_unarchived(report, by_timeline) if report else None,
        reported_at=report.at if report else None,
        slot=_slot(sight.reports),
        gaps=_gaps(sight, ranges, now),
    )
    return replace(found, lag_seconds=found.lag_at(now))


def replayable(inventory: WalInventory, backup: BackupBase | None) -> tuple[WalRange, ...]:
    """At most one range of each timeline, oldest timeline first: each can be replayed after those
    before it, beginning at the backup, or where the archive begins when there is none.

    A promoted server begins its timeline with a copy of the segment in which it branched off, so a
    timeline goes on from an older one that reaches the segment where it starts.
    """
    found: list[WalRange] = []
    reach = backup.lsn if backup else None
    for timeline in inventory.timelines:
        if backup and timeline < backup.timeline:
            continue
        following = (
            inventory.range_at(timeline, backup.lsn)
            if backup and timeline == backup.timeline
            else inventory.through(timeline)
        )
        if following and (reach is None or following.start <= reach):
            found.append(following)
            reach = max(reach or following.end, following.end)
    return tuple(found)


def _current(ranges: Sequence[WalRange], report: WriterReport | None) -> WalRange | None:
    """Of the timeline that the server was on: a higher one may be that of a stray copy."""
    of_server = (one for one in ranges if report and one.timeline == report.timeline)
    return next(of_server, ranges[-1] if ranges else None)


def _protected_at(
    sight: WalSight, current: WalRange | None, ranges: Mapping[int, WalRange], now: datetime
) -> datetime | None:
    known = [report.at for report in sight.reports if _is_archived(report, ranges)]
    if current and current.last_commit:
        known.append(current.last_commit)
    if sight.backup and sight.backup.whole:
        known.append(sight.backup.at)
    if before := _still_protected(sight.previous, ranges):
        known.append(before)
    # What the future holds was told by a clock that is wrong.
    return max((instant.astimezone(UTC) for instant in known if instant <= now), default=None)


def _is_archived(report: WriterReport, ranges: Mapping[int, WalRange]) -> bool:
    one = ranges.get(report.timeline)
    lsn = report.server_lsn
    return one is not None and lsn is not None and one.start <= lsn <= one.end


def _still_protected(
    previous: WalFreshness | None, ranges: Mapping[int, WalRange]
) -> datetime | None:
    """What was protected stays so while the archive reaches as far: of the reports only the newest
    are kept, and the one that proved it may be gone.
    """
    if previous is None or previous.timeline is None or previous.through_lsn is None:
        return None
    one = ranges.get(previous.timeline)
    return previous.protected_at if one and previous.through_lsn <= one.end else None


def _unarchived(report: WriterReport, ranges: Mapping[int, WalRange]) -> int | None:
    one = ranges.get(report.timeline)
    if report.server_lsn is None or one is None:
        return report.unarchived_bytes
    return max(0, report.server_lsn - one.end)


def _slot(reports: Sequence[WriterReport]) -> SlotState | None:
    newest_first = sorted(reports, key=lambda one: one.at, reverse=True)
    recent = (one for one in newest_first if newest_first[0].at - one.at <= _SLOT_COUNTS)
    return next((one.slot for one in recent if one.slot), None)


def _gaps(sight: WalSight, ranges: Sequence[WalRange], now: datetime) -> tuple[WalGap, ...]:
    """Holes that the archive shows; and those that a writer reported, while nothing behind them is
    archived and the archive does not show them yet.
    """
    holes = [*_holes(sight.inventory), *_before_timelines(sight.inventory, ranges)]
    told = {gap.key: gap for gap in sight.reported_gaps}
    before = {gap.key: gap for gap in sight.previous.gaps} if sight.previous else {}
    gaps = {}
    for timeline, start, end in holes:
        gap = WalGap(timeline, start, end, now, (timeline, end) in told)
        known = before.get(gap.key) or told.get(gap.key) or gap
        gaps[gap.key] = replace(gap, since=known.since)
    pending = {key: gap for key, gap in told.items() if _is_ahead(gap, sight.inventory)}
    return tuple(sorted((pending | gaps).values()))


def _is_ahead(gap: WalGap, inventory: WalInventory) -> bool:
    newest = inventory.newest(gap.timeline)
    return newest is None or newest.end < gap.end


def _holes(inventory: WalInventory) -> Iterable[tuple[int, Lsn, Lsn]]:
    for timeline in inventory.timelines:
        for start, end in inventory.gaps(timeline):
            yield timeline, start, end


def _before_timelines(
    inventory: WalInventory, ranges: Sequence[WalRange]
) -> Iterable[tuple[int, Lsn, Lsn]]:
    """The log that is missing before a timeline which no older one reaches."""
    reached = {one.timeline for one in ranges}
    for timeline in inventory.timelines:
        older = [one for one in ranges if one.timeline < timeline]
        first = inventory.through(timeline)
        if timeline not in reached and older and first and older[-1].end < first.start:
            yield older[-1].timeline, older[-1].end, first.start
