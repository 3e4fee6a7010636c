"""When jobs are due: cron expressions in UTC, and the ticks that they stand for.

A tick is named by its cron time. It may be served a little later, so that a fleet with one schedule
does not start at once: by the same amount for the same cluster and kind, always.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice, pairwise
from typing import Final
from uuid import UUID, uuid5

from cronsim import CronSim, CronSimError

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.errors import InvalidInput

# The dispatcher runs each minute; a tick served more than two runs later was missed.
LATE_AFTER: Final = timedelta(minutes=2)
_NAMESPACE: Final = UUID("6f2d3a0e-6d0c-5c8e-9b54-0d4a3f1c7e11")
_MOMENT: Final = timedelta(microseconds=1)
# Gaps between the ticks of most expressions repeat well within so many.
_TICKS_LOOKED_AT: Final = 32
_SOME_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)


class ScheduleInvalid(InvalidInput):
    """A text that is no cron expression."""

    code = "schedule-invalid"
    hint = "Five fields, minute hour day month weekday, in UTC: `0 3 * * 0` is Sunday 03:00."


class ScheduleKind(StrEnum):
    """What a schedule can ask for, as the settings call it; in the order in which a backlog is
    worked off: what proves comes first, then what protects.
    """

    VERIFY = "verify"
    FULL = "full"
    INCREMENTAL = "incremental"
    EXPIRE = "expire"
    DRILL_QUICK = "drill_quick"
    DRILL_EXTENDED = "drill_extended"
    DRILL_SIMULATION = "drill_simulation"
    DRILL_DISASTER = "drill_disaster"
    MAINTENANCE = "maintenance"
    AUDIT = "audit"

    @property
    def priority(self) -> int:
        """Lower is sooner."""
        return _PRIORITIES[self]

    @property
    def backup_kind(self) -> BackupKind | None:
        return BackupKind(self.value) if self.value in set(BackupKind) else None


_PRIORITIES: Final = {kind: number for number, kind in enumerate(ScheduleKind)}


@dataclass(frozen=True, slots=True)
class Tick:
    """One thing to be done. `job_id` is the same for the same tick, whoever computes it."""

    cluster: ClusterName
    kind: ScheduleKind
    due: datetime
    late: bool = False

    @property
    def job_id(self) -> UUID:
        return scheduled_job_id(self.cluster, self.kind, self.due)


def check_cron(cron: str) -> str:
    """Returns `cron` unchanged, or raises ScheduleInvalid."""
    if len(cron.split()) != 5:  # noqa: PLR2004 - cron's five fields
        raise ScheduleInvalid(f"{cron!r} has not five fields")
    try:
        CronSim(cron, _SOME_DAY)
    except CronSimError as error:
        raise ScheduleInvalid(f"{cron!r} is not a cron expression: {error}") from None
    return cron


def latest_tick(cron: str, now: datetime) -> datetime:
    """The newest tick at or before `now`, which must carry UTC."""
    return _latest(cron, _minute(now))


def next_tick(cron: str, after: datetime) -> datetime:
    """The first tick later than `after`, which must carry UTC."""
    return _next(cron, _minute(after))


def _minute(at: datetime) -> datetime:
    """Ticks are whole minutes, so that of two instants in one minute the same is true."""
    return at.replace(second=0, microsecond=0)


# A fleet has few expressions and asks all of them at one instant.
@lru_cache(maxsize=8192)
def _latest(cron: str, minute: datetime) -> datetime:
    return next(CronSim(cron, minute + _MOMENT, reverse=True))


@lru_cache(maxsize=8192)
def _next(cron: str, minute: datetime) -> datetime:
    return next(CronSim(cron, minute))


def ticks(cron: str, after: datetime) -> Iterator[datetime]:
    """All later than `after`, in order, without end."""
    return CronSim(cron, after)


@lru_cache(maxsize=4096)
def shortest_gap(cron: str) -> timedelta:
    """Between two ticks, as far as the first few show it."""
    sample = islice(CronSim(cron, _SOME_DAY), _TICKS_LOOKED_AT)
    return min((later - sooner for sooner, later in pairwise(sample)), default=timedelta.max)


def delay_of(
    cluster: ClusterName, what: str, crons: Collection[str], spread: timedelta
) -> timedelta:
    """How much later than the ticks of `crons` `what` is served: whole seconds in [0, `spread`).

    Never half a gap or more, so that no tick runs into the next.
    """
    room = min([spread, *(shortest_gap(cron) / 2 for cron in crons)])
    seconds = int(room.total_seconds())
    if seconds < 1:
        return timedelta()
    digest = hashlib.sha256(f"{cluster}\n{what}".encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8]) % seconds)


def scheduled_job_id(cluster: ClusterName, kind: ScheduleKind | BackupKind, tick: datetime) -> UUID:
    return uuid5(_NAMESPACE, f"{cluster}\n{kind}\n{tick.isoformat()}")
