"""`pgkeep check --settings-only`: the settings file alone, and what it promises each cluster."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from shared.domain.schedule import next_tick
from shared.settings import ClusterSettings, Settings


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A kind of job as the schedule names it, with its cron expression and its next tick."""

    kind: str
    cron: str
    next: datetime


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    """What holds for a cluster once the policies are laid over one another."""

    cluster: str
    policy: str | None
    runs: tuple[PlannedRun, ...]
    retention: Mapping[str, object]
    objectives: Mapping[str, object]


def effective_policies(settings: Settings, now: datetime) -> list[ClusterPolicy]:
    """In the order of the file; no server and no storage is asked."""
    return [_effective(cluster, now) for cluster in settings.cluster]


def _effective(cluster: ClusterSettings, now: datetime) -> ClusterPolicy:
    return ClusterPolicy(
        cluster=cluster.name,
        policy=cluster.policy,
        runs=tuple(sorted(_runs(cluster, now), key=lambda run: run.next)),
        retention=cluster.retention.model_dump(mode="json"),
        objectives=cluster.objectives.model_dump(mode="json"),
    )


def _runs(cluster: ClusterSettings, now: datetime) -> Iterator[PlannedRun]:
    for kind, cron in cluster.schedule:
        wanted = kind != "maintenance" or cluster.maintenance.dsn is not None
        if cron and wanted:
            yield PlannedRun(kind, cron, next_tick(cron, now))
