"""What the schedule promised and does not keep: runs that are missed, skipped or too long."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from functions.finding_news import tell
from functions.wiring import Services
from shared.catalogue.ports import JobRecord
from shared.domain.agenda import AgendaEntry
from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import Finding
from shared.domain.job import JobState
from shared.jobs.messages import BackupJob, DrillJob
from shared.settings import ClusterSettings, Window

# A promise of the product: what does not start is known within a quarter of an hour (P10).
MISSED_AFTER: Final = timedelta(minutes=15)
# One run that overlaps the next tick may happen; three in a row will not get better by themselves.
SKIPPED_TOO_OFTEN: Final = 3
_SCOPES: Final = (FindingScope.SCHEDULE,)
_LISTED: Final = 10_000


def watch_schedule(services: Services) -> None:
    """Settle the scope SCHEDULE of every cluster that has, or had, something to settle."""
    began = services.clock()
    found: dict[ClusterName, list[Finding]] = defaultdict(list)
    for cluster, finding in _found(services, began):
        found[cluster].append(finding)
    for cluster in {*found, *_with_open_findings(services)}:
        changes = services.catalogue.settle_findings(
            cluster, _SCOPES, found.get(cluster, ()), began
        )
        tell(services, cluster, changes)


def _found(services: Services, now: datetime) -> Iterator[tuple[ClusterName, Finding]]:
    """Of the clusters that the settings name."""
    clusters = {cluster.name: cluster for cluster in services.settings.cluster}
    catalogue = services.catalogue
    for entry in catalogue.due_entries(now - MISSED_AFTER, _LISTED):
        if entry.cluster in clusters:
            yield entry.cluster, _not_started(entry)
    for job in catalogue.jobs(state=JobState.REQUESTED, limit=_LISTED):
        if job.cluster in clusters and _is_stale(job, now):
            yield job.cluster, _not_taken(job)
    for entry in catalogue.often_skipped(SKIPPED_TOO_OFTEN):
        if entry.cluster in clusters:
            yield entry.cluster, _skipped(entry)
    for job in catalogue.running_jobs():
        yield from _overrun(job, clusters, now)


def _with_open_findings(services: Services) -> Iterator[ClusterName]:
    for recorded in services.catalogue.findings():
        if recorded.finding.scope is FindingScope.SCHEDULE:
            yield recorded.cluster


def _not_started(entry: AgendaEntry) -> Finding:
    fact = f"{entry.kind} was to start at {entry.next_at:%F %R} UTC and has not been asked for yet"
    return Finding(
        FindingCode.RUN_MISSED,
        entry.kind.value,
        entry.next_at,
        fact,
        {"kind": entry.kind.value, "next_at": entry.next_at.isoformat()},
    )


def _is_stale(job: JobRecord, now: datetime) -> bool:
    return job.requested_at is not None and now - job.requested_at > MISSED_AFTER


def _not_taken(job: JobRecord) -> Finding:
    since = job.requested_at
    if since is None:
        raise AssertionError("only jobs that were asked for are stale")
    fact = f"{job.verb} {job.job_id} was asked for at {since:%F %R} UTC, and no worker has begun it"
    return Finding(
        FindingCode.RUN_MISSED, f"{job.verb} job", since, fact, {"job_id": str(job.job_id)}
    )


def _skipped(entry: AgendaEntry) -> Finding:
    since = entry.served or entry.next_at
    why = "what it has to wait for still ran"
    fact = f"{entry.kind} was passed over {entry.skipped} times in a row: {why}"
    evidence = {"kind": entry.kind.value, "times": str(entry.skipped)}
    return Finding(FindingCode.RUN_SKIPPED, entry.kind.value, since, fact, evidence)


def _overrun(
    job: JobRecord, clusters: Mapping[str, ClusterSettings], now: datetime
) -> Iterator[tuple[ClusterName, Finding]]:
    cluster, began = clusters.get(job.cluster), job.progress.started_at
    if cluster is None or began is None:
        return
    window = _window_of(job, cluster.window)
    if window is None or now - began <= window:
        return
    minutes, allowed = (int(span.total_seconds() // 60) for span in (now - began, window))
    fact = f"{job.verb} {job.job_id} has run for {minutes} minutes; its window has {allowed}"
    evidence = {"job_id": str(job.job_id), "minutes": str(minutes), "window": str(allowed)}
    over = Finding(FindingCode.WINDOW_OVERRUN, job.verb.value, began + window, fact, evidence)
    yield job.cluster, over


def _window_of(job: JobRecord, window: Window) -> timedelta | None:
    match job.request:
        case BackupJob(kind=kind):
            full = kind is BackupKind.FULL
            return timedelta(minutes=window.full_minutes if full else window.incremental_minutes)
        case DrillJob():
            return timedelta(minutes=window.drill_minutes)
        case _:
            return None
