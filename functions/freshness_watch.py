"""Whether the promises about age, recovery point, recovery time and storage are kept."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from functions.finding_news import tell
from functions.fleet_gauges import record_member, record_storage
from functions.wiring import Services
from shared.catalogue.fleet_port import FleetMember
from shared.catalogue.ports import RecordedFinding
from shared.domain.backup_freshness import Promises, backup_findings, promised_age, rpo_findings
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.domain.rto_prediction import RtoPrediction, predict_rto, rto_findings
from shared.domain.schedule_gap import longest_gap
from shared.domain.storage_use import DAYS_CONSIDERED, StorageSample, storage_findings
from shared.settings import ClusterSettings

# Clusters whose facts are held in memory together.
_AT_ONCE: Final = 1000
_SCOPES: Final = (FindingScope.FRESHNESS,)
_WARN_RATIO: Final = 0.8  # of the fleet's budget, as the strategy's alert has it
_DRILLS: Final = ("drill_quick", "drill_extended", "drill_simulation", "drill_disaster")
# Gaps are looked for from one fixed day on, so that they are found once.
_SOME_DAY: Final = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def watch_fleet(services: Services) -> None:
    """Settle the scope FRESHNESS of every cluster that has, or had, something to settle."""
    began = services.clock()
    known = _open(services)
    used = 0
    clusters = services.settings.cluster
    for start in range(0, len(clusters), _AT_ONCE):
        used += _watch_group(services, clusters[start : start + _AT_ONCE], known, began)
    _close_of_gone(services, known, began)
    _watch_budget(services, used, known, began)


def _watch_group(
    services: Services,
    clusters: Sequence[ClusterSettings],
    known: Mapping[ClusterName, Sequence[RecordedFinding]],
    now: datetime,
) -> int:
    """How many bytes they use together."""
    names = [cluster_name(cluster.name) for cluster in clusters]
    members = services.catalogue.fleet(names, now)
    used = {name: member.used_bytes for name, member in members.items()}
    services.catalogue.put_storage_samples(used, now.date())
    budgeted = [n for n, c in zip(names, clusters, strict=True) if c.storage.budget_bytes]
    samples = _samples(services, budgeted, now)
    for name, cluster in zip(names, clusters, strict=True):
        before = known.get(name, ())
        member = members[name]
        record_member(services.telemetry, cluster, member, predicted_rto(member, before), now)
        found = list(_findings(cluster, member, samples.get(name, ()), before, now))
        if found or any(_is_ours(one) for one in before):
            tell(services, name, services.catalogue.settle_findings(name, _SCOPES, found, now))
    return sum(used.values())


def _close_of_gone(
    services: Services, known: Mapping[ClusterName, Sequence[RecordedFinding]], now: datetime
) -> None:
    """Nothing is promised any more for clusters that the settings no longer name."""
    watched = {REPOSITORY, *(cluster_name(one.name) for one in services.settings.cluster)}
    for name in known.keys() - watched:
        if any(_is_ours(one) for one in known[name]):
            tell(services, name, services.catalogue.settle_findings(name, _SCOPES, (), now))


def _findings(
    cluster: ClusterSettings,
    member: FleetMember,
    samples: Sequence[StorageSample],
    before: Sequence[RecordedFinding],
    now: datetime,
) -> Iterator[Finding]:
    promises = promises_of(cluster)
    yield from backup_findings(member.ages, promises, now)
    yield from rpo_findings(member.wal, promises, now)
    prediction = predicted_rto(member, before)
    last = member.drills[0] if member.drills else None
    promised = timedelta(minutes=cluster.objectives.rto_minutes)
    yield from rto_findings(prediction, last, promised, now)
    budget, ratio = cluster.storage.budget_bytes, cluster.storage.warn_ratio
    yield from storage_findings(member.used_bytes, budget, ratio, samples, now)


def predicted_rto(member: FleetMember, known: Sequence[RecordedFinding]) -> RtoPrediction | None:
    """`known` are the cluster's open findings: archived blobs have to be rehydrated first."""
    sizes = (member.restored_bytes, member.replayed_bytes)
    return predict_rto(member.drills, *sizes, _rehydration(known))


def promises_of(cluster: ClusterSettings) -> Promises:
    """By the objectives, but never sooner than the schedule can keep them."""
    schedule, objectives = cluster.schedule, cluster.objectives
    backups = _gap(tuple(cron for cron in (schedule.full, schedule.incremental) if cron))
    drills = _gap(tuple(cron for kind in _DRILLS if (cron := getattr(schedule, kind))))
    return Promises(
        committed=promised_age(timedelta(hours=objectives.committed_hours), backups),
        verified=promised_age(timedelta(hours=objectives.verified_hours), backups),
        proven=promised_age(timedelta(days=objectives.proven_days), drills),
        rpo=timedelta(seconds=objectives.rpo_seconds),
    )


@cache
def _gap(crons: tuple[str, ...]) -> timedelta | None:
    return longest_gap(crons, _SOME_DAY) if crons else None


def _watch_budget(
    services: Services,
    used: int,
    known: Mapping[ClusterName, Sequence[RecordedFinding]],
    now: datetime,
) -> None:
    """Of all clusters together."""
    services.catalogue.put_storage_samples({REPOSITORY: used}, now.date())
    budget = services.settings.fleet.budget_bytes
    record_storage(services.telemetry, REPOSITORY, used, budget)
    samples = _samples(services, [REPOSITORY], now).get(REPOSITORY, ())
    found = list(storage_findings(used, budget, _WARN_RATIO, samples, now))
    if found or any(_is_ours(one) for one in known.get(REPOSITORY, ())):
        tell(
            services,
            REPOSITORY,
            services.catalogue.settle_findings(REPOSITORY, _SCOPES, found, now),
        )


def _samples(
    services: Services, names: Sequence[ClusterName], now: datetime
) -> Mapping[ClusterName, Sequence[StorageSample]]:
    since = now.date() - timedelta(days=DAYS_CONSIDERED)
    return services.catalogue.storage_samples(names, since) if names else {}


def _open(services: Services) -> Mapping[ClusterName, list[RecordedFinding]]:
    known: dict[ClusterName, list[RecordedFinding]] = {}
    for recorded in services.catalogue.findings():
        known.setdefault(recorded.cluster, []).append(recorded)
    return known


def _is_ours(recorded: RecordedFinding) -> bool:
    return recorded.finding.scope is FindingScope.FRESHNESS


def _rehydration(before: Sequence[RecordedFinding]) -> timedelta:
    """What the guard says of the time until archived blobs can be read again."""
    hours = (
        float(one.finding.evidence.get("rehydration_hours", 0))
        for one in before
        if one.finding.code is FindingCode.TIERED_TOO_EARLY
    )
    return timedelta(hours=max(hours, default=0))
