"""Jobs that a person asks for over HTTP, and how any job is shown."""

import logging
from datetime import datetime
from typing import Any
from uuid import UUID

from functions.http_protocol import Body
from functions.operations import Call
from functions.outbox import send_requested
from functions.wiring import Services
from shared.catalogue.ports import JobRecord
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.job import JobState, JobVerb
from shared.errors import ClusterUnknown, Unavailable
from shared.event_log import log_event
from shared.jobs.messages import AnyJob
from shared.telemetry.trace_context import current_traceparent


class Accepted(Body):
    """The answer 202: the job is recorded, and will be sent even if we crash now."""

    job_id: UUID
    status_url: str


class JobStatus(Body):
    """`retry_of` is the job that was asked for first, when this one takes its place."""

    job_id: UUID
    cluster: str
    verb: JobVerb
    state: JobState
    attempt: int
    requested_at: datetime | None
    sent_at: datetime | None
    started_at: datetime | None
    heard_at: datetime | None
    done_bytes: int
    total_bytes: int
    result: str | None
    error_code: str | None
    error_fact: str | None
    retry_of: UUID | None


def protected_cluster(services: Services, name: str) -> ClusterName:
    """Raises ClusterUnknown, in the same words for every name that is none of ours."""
    if name not in {cluster.name for cluster in services.settings.cluster}:
        raise ClusterUnknown(f"cluster {name} is not known")
    return cluster_name(name)


def accept(call: Call[Any], job: AnyJob) -> None:
    """Write down who asked, record the job, try to send it.

    Raises RequestConflict for an Idempotency-Key that was used for another job.
    """
    asked = job.model_dump(mode="json", exclude={"version", "verb", "cluster"}, exclude_none=True)
    call.record(f"{job.verb}.request", f"cluster {job.cluster}", **asked)
    traced = job.model_copy(update={"traceparent": current_traceparent()})
    new = call.services.catalogue.request(traced, call.services.clock())
    log_event("job-requested", job_id=job.job_id, verb=job.verb, cluster=job.cluster, new=new)
    send_now_or_later(call.services)


def send_now_or_later(services: Services) -> None:
    """A queue that is down is no reason to refuse: timer_dispatch sends within minutes."""
    try:
        send_requested(services)
    except Unavailable as error:
        log_event("jobs-not-yet-sent", level=logging.WARNING, code=error.code)


def job_status(job: JobRecord) -> JobStatus:
    progress, finished = job.progress, job.progress.finished
    return JobStatus(
        job_id=job.job_id,
        cluster=job.cluster,
        verb=job.verb,
        state=progress.state,
        attempt=progress.attempt,
        requested_at=job.requested_at,
        sent_at=job.sent_at,
        started_at=progress.started_at,
        heard_at=progress.heard_at,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        result=finished.result if finished else None,
        error_code=finished.error_code if finished else None,
        error_fact=finished.error_fact if finished else None,
        retry_of=job.retry_of,
    )
