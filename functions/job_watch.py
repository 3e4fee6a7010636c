"""Jobs that went wrong: what is lost is asked for again, and what stays wrong becomes a finding."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from functions.event_watch import waiting_events
from functions.finding_news import tell
from functions.poisoned import SHOWN_FOR, MessagePoisoned, poisoned_queues
from functions.silent_jobs import give_up_silent_jobs
from functions.wiring import Services
from shared.catalogue.ports import JobRecord
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.event_log import log_event

# Longer than the rarest schedule, the yearly drill: its last run is still known at the next.
KEPT_FOR: Final = timedelta(days=400)
_SCOPES: Final = (FindingScope.JOBS,)


def recover_lost(services: Services) -> None:
    """Each minute: give up jobs whose worker fell silent, and record the requests that follow."""
    give_up_silent_jobs(services)


def watch_jobs(services: Services) -> None:
    """Settle the scope JOBS of every cluster, and of the repository where no cluster is named."""
    began = services.clock()
    found = _found(services)
    for cluster in {*found, *_clusters_with_open_findings(services)}:
        changes = services.catalogue.settle_findings(
            cluster, _SCOPES, found.get(cluster, ()), began
        )
        tell(services, cluster, changes)


def prune(services: Services) -> int:
    """Forget jobs that are long over, with all their events, and ticks of schedules; how many."""
    before, forgotten = services.clock() - KEPT_FOR, 0
    while count := services.catalogue.prune_jobs(before):
        forgotten += count
    if forgotten:
        log_event("jobs-forgotten", jobs=forgotten, before=before)
    return forgotten


def _found(services: Services) -> Mapping[ClusterName, Sequence[Finding]]:
    """Only of clusters that the settings name: the others' jobs will never succeed any more."""
    known = {cluster.name for cluster in services.settings.cluster}
    found: dict[ClusterName, list[Finding]] = defaultdict(list)
    for job in services.catalogue.failed_jobs():
        if job.cluster in known and job.ended_at is not None:
            found[job.cluster].append(_failure(job, job.ended_at))
    since = services.clock() - SHOWN_FOR
    found[REPOSITORY] += poisoned_queues(
        services.catalogue.set_aside_since(since, MessagePoisoned.code)
    )
    found[REPOSITORY] += waiting_events(services)
    return found


def _clusters_with_open_findings(services: Services) -> Iterator[ClusterName]:
    for recorded in services.catalogue.findings():
        if recorded.finding.scope is FindingScope.JOBS:
            yield recorded.cluster


def _failure(job: JobRecord, since: datetime) -> Finding:
    """One for each verb, however often it fails: it is the verb that does not get done."""
    end = job.progress.finished
    code, fact = (end.error_code or "", end.error_fact or "") if end else ("", "")
    return Finding(
        code=FindingCode.JOB_LOST if job.progress.lost else FindingCode.JOB_FAILED,
        object=job.verb.value,
        since=since,
        fact=f"{job.verb} {job.job_id} failed: {code}: {fact}",
        evidence={"job_id": str(job.job_id), "error_code": code, "retries": str(job.retry)},
    )
