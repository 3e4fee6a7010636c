"""The job that a tick of the schedule asks for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from functions.wiring import Services
from shared.catalogue.agenda_port import NewestBackups
from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.dispatch_plan import DueTick, Passed
from shared.domain.drill_choice import drawn, older_backups
from shared.domain.drill_target import AnyInstant, DrillLevel
from shared.domain.needed_until import GuardedBackup
from shared.domain.schedule import ScheduleKind, Tick
from shared.event_log import log_event
from shared.jobs.messages import (
    AnyJob,
    AuditJob,
    BackupJob,
    DrillJob,
    ExpireJob,
    MaintenanceJob,
    VerifyJob,
)
from shared.settings import ClusterSettings

# An audit that never ran covers the time of the longest quarter.
_FIRST_AUDIT: Final = timedelta(days=92)
# Maintenance that could not even look around is not begun.
_LEAST_WINDOW: Final = timedelta(minutes=1)
_OF_OLDER_ONES: Final = frozenset({ScheduleKind.DRILL_EXTENDED})
_LEVELS: Final[Mapping[ScheduleKind, tuple[DrillLevel, AnyInstant]]] = {
    ScheduleKind.DRILL_QUICK: (DrillLevel.QUICK, AnyInstant.LATEST),
    ScheduleKind.DRILL_EXTENDED: (DrillLevel.EXTENDED, AnyInstant.RANDOM),
    ScheduleKind.DRILL_SIMULATION: (DrillLevel.SIMULATION, AnyInstant.LATEST),
    ScheduleKind.DRILL_DISASTER: (DrillLevel.DISASTER, AnyInstant.LATEST),
}


@dataclass(frozen=True, slots=True)
class JobsToBe:
    """What has to be known to turn ticks into jobs, read for all of them at once."""

    now: datetime
    clusters: Mapping[str, ClusterSettings]
    newest: Mapping[ClusterName, NewestBackups]
    has_secondary: bool
    backups: Mapping[ClusterName, Sequence[GuardedBackup]] = field(default_factory=dict)

    @classmethod
    def of(cls, services: Services, due: Sequence[DueTick], now: datetime) -> "JobsToBe":
        wanted = {one.tick.cluster for one in due if _reads_a_backup(one.tick.kind)}
        newest = services.catalogue.newest_backups(wanted) if wanted else ()
        drawn_from = {one.tick.cluster for one in due if one.tick.kind in _OF_OLDER_ONES}
        return cls(
            now=now,
            clusters=_named(services, {one.tick.cluster for one in due}),
            newest={one.cluster: one for one in newest},
            has_secondary=services.settings.has_secondary,
            backups=services.catalogue.guarded_backups(drawn_from) if drawn_from else {},
        )

    def job(self, one: DueTick) -> AnyJob | Passed:
        """Or why there is none."""
        tick = one.tick
        match tick.kind:
            case ScheduleKind.VERIFY:
                return self._verify(tick)
            case ScheduleKind.EXPIRE:
                return ExpireJob(job_id=tick.job_id, cluster=tick.cluster, due=tick.due)
            case ScheduleKind.MAINTENANCE:
                return self._maintenance(tick)
            case ScheduleKind.AUDIT:
                return _audit(one)
            case ScheduleKind.FULL | ScheduleKind.INCREMENTAL:
                return _backup(tick)
            case _:
                return self._drill(tick)

    def _verify(self, tick: Tick) -> VerifyJob | Passed:
        newest = self.newest.get(tick.cluster)
        if newest is None:
            return Passed.NOTHING_THERE
        return VerifyJob(
            job_id=tick.job_id,
            cluster=tick.cluster,
            label=newest.label,
            document_digest=newest.digest,
            whole_chain=True,
        )

    def _drill(self, tick: Tick) -> DrillJob | Passed:
        """From the newest verified backup on to the end of the archive; an extended one from an
        older backup, if there is any, to somewhere before the next.

        From the secondary on, the newest backup is whichever is whole there.
        """
        newest = self.newest.get(tick.cluster)
        if newest is None or newest.verified_label is None:
            return Passed.NOTHING_THERE
        level, target = _LEVELS[tick.kind]
        elsewhere = level is DrillLevel.DISASTER and self.has_secondary
        label = newest.verified_label
        if tick.kind in _OF_OLDER_ONES:
            label = self._older(tick, BackupLabel(label))
        return DrillJob(
            job_id=tick.job_id,
            cluster=tick.cluster,
            label=None if elsewhere else label,
            target=target.value,
            level=level,
            from_secondary=elsewhere,
        )

    def _older(self, tick: Tick, newest: BackupLabel) -> str:
        """By lot, or else the newest."""
        terms = self.clusters[tick.cluster].retention
        older = older_backups(self.backups.get(tick.cluster, ()), terms, self.now, newest)
        label = drawn(older, str(tick.job_id)) if older else newest
        log_event("drill-drawn", cluster=tick.cluster, label=label, among=len(older))
        return label.text

    def _maintenance(self, tick: Tick) -> MaintenanceJob | Passed:
        until = tick.due + timedelta(minutes=self.clusters[tick.cluster].maintenance.minutes)
        if self.now + _LEAST_WINDOW > until:
            return Passed.WINDOW_OVER
        return MaintenanceJob(job_id=tick.job_id, cluster=tick.cluster, due=tick.due, until=until)


def _reads_a_backup(kind: ScheduleKind) -> bool:
    return kind is ScheduleKind.VERIFY or kind in _LEVELS


def _named(services: Services, names: Collection[str]) -> Mapping[str, ClusterSettings]:
    return {one.name: one for one in services.settings.cluster if one.name in names}


def _backup(tick: Tick) -> BackupJob:
    kind = tick.kind.backup_kind
    if kind is None:
        raise AssertionError(f"{tick.kind} is no backup")
    return BackupJob(
        job_id=tick.job_id, cluster=tick.cluster, kind=kind, due=tick.due, late=tick.late
    )


def _audit(one: DueTick) -> AuditJob:
    tick = one.tick
    return AuditJob(
        job_id=tick.job_id,
        cluster=tick.cluster,
        since=one.entry.served or tick.due - _FIRST_AUDIT,
        until=tick.due,
    )
