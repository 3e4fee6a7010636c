"""To which instant a drill goes, planned from the repository."""

from dataclasses import dataclass
from typing import assert_never

from shared.domain.drill_target import (
    AnyInstant,
    DrillTarget,
    GivenInstant,
    instant_between,
)
from shared.domain.recovery_plan import TargetUnreachable
from shared.domain.recovery_target import RecoveryTarget, ToLatest, ToTime
from shared.repository.backups import StoredBackup
from worker.commands.recovery import PlannedRecovery, RecoveryRequest, plan_to_target
from worker.commands.services import Services

_CHANCE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Instant:
    """What a drill recovers to: without a plan, to the end of the backup. `note` says why."""

    stored: StoredBackup
    planned: PlannedRecovery | None = None
    note: str = ""


def plan_instant(
    services: Services, stored: StoredBackup, target: DrillTarget | None, *, named: bool
) -> Instant:
    """`stored` is the newest backup, or the one that was `named` and that it must be.

    Raises TargetUnreachable and what plan_to_target raises.
    """

    def plan(to: RecoveryTarget) -> PlannedRecovery:
        label = stored.document.label if named else None
        return plan_to_target(services, stored.ref.cluster, label, RecoveryRequest(to))

    match target:
        case None:
            return Instant(stored)
        case GivenInstant(time):
            return _planned(plan(ToTime(time)))
        case AnyInstant.LATEST:
            return _planned(plan(ToLatest()))
        case AnyInstant.RANDOM:
            try:
                latest = plan(ToLatest())
            except TargetUnreachable as error:
                return Instant(stored, note=f"no instant to choose from: {error.fact}")
            return _random(services, latest)
    assert_never(target)


def _planned(planned: PlannedRecovery) -> Instant:
    return Instant(planned.backup, planned)


def _random(services: Services, latest: PlannedRecovery) -> Instant:
    """Every instant that this backup reaches is as likely as any other."""
    first, last = latest.backup.document.finished_at, latest.plan.window.last_commit
    if last is None or last <= first:
        return Instant(latest.backup, note="the archive has no commit from after the backup")
    time = instant_between(first, last, services.random(_CHANCE_BYTES))
    return _planned(latest.to(ToTime(time)))
