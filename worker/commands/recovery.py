"""Planning a recovery from the repository: which backup, which timeline, which WAL.

Everything that can be known before a byte is written is asked here. The arithmetic is
shared.domain.recovery_plan's; this module reads what it needs: every backup's document once, one
listing of the archive, the timelines' history files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from shared.domain.backup import BackupSource
from shared.domain.cluster import ClusterName
from shared.domain.recovery_plan import (
    BackupCandidate,
    RecoveryPlan,
    RecoveryWindow,
    recovery_windows,
)
from shared.domain.recovery_target import (
    RecoveryTarget,
    RecoveryTargetInvalid,
    TargetAction,
    ToImmediate,
    ToLatest,
)
from shared.domain.wal_inventory import ListedArchive
from shared.domain.wal_segment import WalFileKind, WalFileName
from shared.errors import ClusterUnknown, Refused
from shared.repository.backups import BackupNotFound, StoredBackup, read_cluster
from shared.repository.documents import BackupDocument
from shared.repository.wal_listing import list_archive
from worker.commands.known_backups import KnownBackups, read_backups
from worker.commands.services import Services
from worker.commands.wal_reader import WalReader
from worker.postgres.recovery_settings import Recovery


class TargetActionImpossible(Refused):
    """A pause or shutdown where PostgreSQL never stops."""

    code = "target-action-impossible"
    hint = "Leave --target-action out, or name a target behind the backup's end."


@dataclass(frozen=True, slots=True)
class RecoveryRequest:
    """Where a restore shall end. `timeline` None lets the plan choose."""

    target: RecoveryTarget = field(default_factory=ToImmediate)
    timeline: int | None = None
    action: TargetAction = TargetAction.PROMOTE

    def check(self) -> None:
        """Raises RecoveryTargetInvalid for words that contradict one another."""
        if self.needs_archive:
            if isinstance(self.target, ToLatest) and self.action is not TargetAction.PROMOTE:
                raise RecoveryTargetInvalid(
                    "PostgreSQL always promotes at the end of the WAL, "
                    f"so it cannot {self.action.value} there"
                )
        elif self.timeline is not None:
            raise RecoveryTargetInvalid("the end of a backup lies on its own timeline")

    @property
    def needs_archive(self) -> bool:
        """The backup carries the WAL up to its own end."""
        return not isinstance(self.target, ToImmediate)


@dataclass(frozen=True, slots=True)
class PlannedRecovery:
    """The plan, the backup it begins with, and what it was made from."""

    plan: RecoveryPlan
    backup: StoredBackup
    known: KnownBackups
    archive: ListedArchive

    @property
    def windows(self) -> tuple[RecoveryWindow, ...]:
        """What else could be reached."""
        return recovery_windows(self.known.candidates, self.archive)

    def to(self, target: RecoveryTarget) -> "PlannedRecovery":
        """The same backup to another target, without reading anything again."""
        label, timeline = self.plan.backup.label, self.plan.timeline
        plan = self.known.plan(self.archive, target, label=label, timeline=timeline)
        return replace(self, plan=plan)


def plan_to_target(
    services: Services, cluster: ClusterName, label: str | None, request: RecoveryRequest
) -> PlannedRecovery:
    """Raises TargetUnreachable, BackupNotFound, and what reading the repository raises."""
    known = read_backups(services, cluster, label)
    archive = _listed(services, cluster, known.candidates, label)
    plan = known.plan(archive, request.target, label=label, timeline=request.timeline)
    backup = known.named(plan.backup.label)
    if backup is None:
        raise BackupNotFound(f"cluster {cluster} has no backup {plan.backup.label}")
    return PlannedRecovery(plan, backup, known, archive)


def recovery_of(
    request: RecoveryRequest,
    planned: PlannedRecovery | None,
    document: BackupDocument,
    command: str | None,
) -> Recovery:
    """What PostgreSQL is told. Raises TargetActionImpossible."""
    if planned is not None:
        # Without a file to fetch, what the archive has of the backup's last segment may be less
        # than the backup brought, and would be read in its place.
        needed = command if planned.plan.segments else None
        return Recovery(planned.plan.target, planned.plan.timeline, request.action, needed)
    end = end_of_backup(document)
    if isinstance(end, ToLatest) and request.action is not TargetAction.PROMOTE:
        raise TargetActionImpossible(
            f"backup {document.label} holds no record behind its end, so that PostgreSQL "
            f"promotes there and does not {request.action.value}"
        )
    return Recovery(end, action=request.action)


def end_of_backup(document: BackupDocument) -> RecoveryTarget:
    """The end of the backup, where PostgreSQL can see it.

    Recovery stops there only when it reads a record beyond it. From an idle standby there may be
    none; and none is in the backup when its last record ends with its segment.
    """
    ends_its_segment = document.stop_lsn % document.postgres.wal_segment_size == 0
    if document.source is BackupSource.STANDBY or ends_its_segment:
        return ToLatest()
    return ToImmediate()


def _listed(
    services: Services,
    cluster: ClusterName,
    candidates: Sequence[BackupCandidate],
    label: str | None,
) -> ListedArchive:
    """WAL from before every backup that may be chosen cannot matter. The backup of a later
    timeline may lie before one of an earlier timeline that ran on after the promotion.
    """
    eligible = [item for item in candidates if label in {None, item.label}]
    timeline = min(item.timeline for item in eligible)
    start = min(item.start_lsn for item in eligible)
    return list_archive(
        services.store,
        cluster,
        segment_size=eligible[0].segment_size,
        since=(timeline, start),
        read_history=_history_reader(services, cluster),
    )


def _history_reader(services: Services, cluster: ClusterName) -> Callable[[int], bytes]:
    identity = read_cluster(services.store, cluster, services.pinned)
    if identity is None:
        raise ClusterUnknown(f"cluster {cluster} has backups, but no cluster.json")
    reader = WalReader(services, identity)
    return lambda timeline: reader.read(WalFileName(WalFileKind.HISTORY, timeline))
