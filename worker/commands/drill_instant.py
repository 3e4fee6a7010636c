"""To which instant a drill goes, planned from the repository."""

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from shared.domain.drill_target import (
    AnyInstant,
    DrillTarget,
    GivenInstant,
    chance_of,
    instant_between,
)
from shared.domain.recovery_plan import TargetUnreachable
from shared.domain.recovery_target import RecoveryTarget, ToLatest, ToTime
from shared.repository.backups import StoredBackup
from worker.commands.recovery import PlannedRecovery, RecoveryRequest, plan_to_target
from worker.commands.services import Services


@dataclass(frozen=True, slots=True)
class Instant:
    """What a drill recovers to: without a plan, to the end of the backup. `note` says why."""

    stored: StoredBackup
    planned: PlannedRecovery | None = None
    note: str = ""


def plan_instant(
    services: Services,
    stored: StoredBackup,
    target: DrillTarget | None,
    *,
    named: bool,
    drill_id: str,
) -> Instant:
    """`stored` is the newest backup, or the one that was `named` and that it must be. The drill's
    id decides what is left to chance, so that a second attempt goes to where the first one went.

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
            return _random(latest, drill_id)
    assert_never(target)


def _planned(planned: PlannedRecovery) -> Instant:
    return Instant(planned.backup, planned)


def _random(latest: PlannedRecovery, drill_id: str) -> Instant:
    """Every instant for which a recovery would begin with this backup is as likely as any other."""
    first, last = latest.backup.document.finished_at, _last_instant(latest)
    if last is None or last <= first:
        return Instant(latest.backup, note="the archive has no commit from after the backup")
    planned = latest.to(ToTime(instant_between(first, last, chance_of(drill_id, "instant"))))
    return Instant(planned.backup, planned, f"drawn by the drill's id from {first} to {last}")


def _last_instant(latest: PlannedRecovery) -> datetime | None:
    """The last commit, or the end of the next backup: from there, later ones are nearer."""
    window = latest.plan.window
    later = window.backups[window.backups.index(latest.plan.backup.label) + 1 :]
    ends = [one.finished_at for one in latest.known.candidates if one.label in later]
    return None if window.last_commit is None else min([window.last_commit, *ends])
