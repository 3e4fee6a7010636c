"""Which backups are due: pure rules over cron expressions in UTC.

A tick that nobody served is caught up once, however many were missed, and marked late.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from cronsim import CronSim, CronSimError

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.errors import InvalidInput

# The dispatcher runs each minute; a tick served more than two runs later was missed.
LATE_AFTER = timedelta(minutes=2)
_NAMESPACE = UUID("6f2d3a0e-6d0c-5c8e-9b54-0d4a3f1c7e11")


class ScheduleInvalid(InvalidInput):
    """A text that is no cron expression."""

    code = "schedule-invalid"
    hint = "Five fields, minute hour day month weekday, in UTC: `0 3 * * 0` is Sunday 03:00."


@dataclass(frozen=True, slots=True)
class BackupSchedule:
    """When a cluster wants backups of one kind; `cron` has five fields and is read in UTC."""

    cluster: ClusterName
    kind: BackupKind
    cron: str


@dataclass(frozen=True, slots=True)
class DueBackup:
    """One tick to be served. `job_id` is the same for the same tick, whoever computes it."""

    cluster: ClusterName
    kind: BackupKind
    due: datetime
    late: bool

    @property
    def job_id(self) -> UUID:
        return scheduled_job_id(self.cluster, self.kind, self.due)


def check_cron(cron: str) -> str:
    """Returns `cron` unchanged, or raises ScheduleInvalid."""
    if len(cron.split()) != 5:  # noqa: PLR2004 - cron's five fields
        raise ScheduleInvalid(f"{cron!r} has not five fields")
    try:
        CronSim(cron, datetime(2024, 1, 1))  # noqa: DTZ001 - only parsed
    except CronSimError as error:
        raise ScheduleInvalid(f"{cron!r} is not a cron expression: {error}") from None
    return cron


def latest_tick(cron: str, now: datetime) -> datetime:
    """The newest tick at or before `now`, which must carry UTC."""
    return next(CronSim(cron, now + timedelta(microseconds=1), reverse=True))


def due(
    schedules: Iterable[BackupSchedule],
    served: Mapping[tuple[ClusterName, BackupKind], datetime],
    now: datetime,
) -> list[DueBackup]:
    """What to start now. `served` holds, per cluster and kind, the newest tick already started."""
    found = []
    for schedule in schedules:
        tick = latest_tick(schedule.cron, now)
        last = served.get((schedule.cluster, schedule.kind))
        if last is None or last < tick:
            late = now - tick > LATE_AFTER
            found.append(DueBackup(schedule.cluster, schedule.kind, tick, late))
    return found


def scheduled_job_id(cluster: ClusterName, kind: BackupKind, tick: datetime) -> UUID:
    return uuid5(_NAMESPACE, f"{cluster}\n{kind}\n{tick.isoformat()}")
