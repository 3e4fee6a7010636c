"""Clusters as the HTTP interface shows them: where they run is nobody's business there."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from functions.freshness_watch import predicted_rto
from functions.http_backups import ListedBackup, listed
from functions.http_protocol import Body
from functions.wiring import Services
from shared.catalogue.fleet_port import FleetMember
from shared.catalogue.ports import CataloguedBackup, RecordedFinding
from shared.domain.agenda import AgendaEntry
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.field_types import LsnText
from shared.domain.finding_rules import Severity
from shared.domain.schedule import ScheduleKind
from shared.settings import (
    ClusterSettings,
    Objectives,
    Replication,
    Retention,
    Schedule,
    Storage,
    Window,
)

# The newest proven backup is looked for among so many; an older proof protects nothing anyway.
_LOOKED_AT: Final = 500


class FindingCount(Body):
    """Open findings."""

    critical: int
    error: int
    warning: int


class ListedCluster(Body):
    """`policy` is the named policy it follows; null: `[policy]` alone. When the newest backup was
    committed, when the newest verified one was, and when a drill last passed.
    """

    cluster: str
    policy: str | None
    committed_at: datetime | None
    verified_at: datetime | None
    proven_at: datetime | None
    protected_at: datetime | None
    used_bytes: int
    findings: FindingCount


class ClusterPolicy(Body):
    """What holds for the cluster, after inheritance."""

    name: str | None
    schedule: Schedule
    window: Window
    retention: Retention
    objectives: Objectives
    replication: Replication
    storage: Storage


class NewestBackups(Body):
    """The newest backup of which each fact is known; null: of none."""

    committed: ListedBackup | None
    verified: ListedBackup | None
    proven: ListedBackup | None


class WalSafety(Body):
    """`lag_seconds` is that of now; api/wal tells more."""

    timeline: int | None
    through_lsn: LsnText | None
    protected_at: datetime | None
    lag_seconds: float | None


class NextRun(Body):
    """When the schedule wants something of a kind next, the fleet's spread included."""

    kind: ScheduleKind
    cron: str
    next_at: datetime


class RecoveryTime(Body):
    """How long a recovery to now would take, in seconds: as promised, as the newest drill measured
    it, and as `drills` drills let expect it. `waiting` is for blobs in the archive tier.
    """

    promised: float
    measured: float | None
    predicted: float | None
    fastest: float | None
    slowest: float | None
    waiting: float
    drills: int


class ShownCluster(Body):
    """`wal` is null until the archive was looked at; `next_runs` are the soonest first."""

    cluster: str
    policy: ClusterPolicy
    newest: NewestBackups
    wal: WalSafety | None
    recovery_time: RecoveryTime
    next_runs: tuple[NextRun, ...]
    findings: FindingCount


def listed_cluster(
    cluster: ClusterSettings, member: FleetMember, recorded: Sequence[RecordedFinding]
) -> ListedCluster:
    return ListedCluster(
        cluster=cluster.name,
        policy=cluster.policy,
        committed_at=member.ages.committed_at,
        verified_at=member.ages.verified_at,
        proven_at=member.ages.proven_at,
        protected_at=member.wal.protected_at if member.wal else None,
        used_bytes=member.used_bytes,
        findings=_count(recorded),
    )


def shown_cluster(services: Services, cluster: ClusterName) -> ShownCluster:
    policy = services.settings.cluster_named(cluster)
    recorded = services.catalogue.findings(cluster)
    return ShownCluster(
        cluster=cluster,
        policy=_policy(policy),
        newest=_newest(services.catalogue.backups(cluster, limit=_LOOKED_AT)),
        wal=_wal(services, cluster),
        recovery_time=_recovery_time(services, policy, recorded),
        next_runs=tuple(map(_next_run, services.catalogue.agenda(cluster))),
        findings=_count(recorded),
    )


def _policy(cluster: ClusterSettings) -> ClusterPolicy:
    return ClusterPolicy(
        name=cluster.policy,
        schedule=cluster.schedule,
        window=cluster.window,
        retention=cluster.retention,
        objectives=cluster.objectives,
        replication=cluster.replication,
        storage=cluster.storage,
    )


def _newest(backups: Sequence[CataloguedBackup]) -> NewestBackups:
    """`backups` are the newest first."""

    def first(fitting: Iterable[CataloguedBackup]) -> ListedBackup | None:
        found = next(iter(fitting), None)
        return listed(found) if found else None

    return NewestBackups(
        committed=first(backups),
        verified=first(one for one in backups if one.facts.verified),
        proven=first(one for one in backups if one.facts.proven),
    )


def _wal(services: Services, cluster: ClusterName) -> WalSafety | None:
    seen = services.catalogue.freshness(cluster)
    if seen is None:
        return None
    return WalSafety(
        timeline=seen.timeline,
        through_lsn=seen.through_lsn,
        protected_at=seen.protected_at,
        lag_seconds=seen.lag_at(services.clock()),
    )


def _recovery_time(
    services: Services, cluster: ClusterSettings, recorded: Sequence[RecordedFinding]
) -> RecoveryTime:
    name = cluster_name(cluster.name)
    member = services.catalogue.fleet([name], services.clock())[name]
    predicted = predicted_rto(member, recorded)
    return RecoveryTime(
        promised=cluster.objectives.rto_minutes * 60,
        measured=member.drills[0].rto_ms / 1000 if member.drills else None,
        predicted=predicted.seconds if predicted else None,
        fastest=predicted.fastest if predicted else None,
        slowest=predicted.slowest if predicted else None,
        waiting=predicted.waiting if predicted else 0,
        drills=predicted.drills if predicted else 0,
    )


def _next_run(entry: AgendaEntry) -> NextRun:
    return NextRun(kind=entry.kind, cron=entry.cron, next_at=entry.next_at)


def _count(recorded: Iterable[RecordedFinding]) -> FindingCount:
    counts = Counter(one.finding.severity for one in recorded)
    return FindingCount(
        critical=counts[Severity.CRITICAL],
        error=counts[Severity.ERROR],
        warning=counts[Severity.WARNING],
    )
