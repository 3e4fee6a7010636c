"""Jobs that a person asks for over HTTP."""

import logging
from uuid import UUID

from functions.http_protocol import Body
from functions.outbox import send_requested
from functions.wiring import Services
from shared.domain.cluster import ClusterName, cluster_name
from shared.errors import ClusterUnknown, Unavailable
from shared.event_log import log_event
from shared.jobs.messages import AnyJob


class Accepted(Body):
    """The answer 202: the job is recorded, and will be sent even if we crash now."""

    job_id: UUID
    status_url: str | None = None


def protected_cluster(services: Services, name: str) -> ClusterName:
    """Raises ClusterUnknown, in the same words for every name that is none of ours."""
    if name not in {cluster.name for cluster in services.settings.cluster}:
        raise ClusterUnknown(f"cluster {name} is not known")
    return cluster_name(name)


def accept(services: Services, job: AnyJob) -> None:
    """Record the job and try to send it. Raises RequestConflict for a reused Idempotency-Key."""
    new = services.catalogue.request(job, services.clock())
    log_event("job-requested", job_id=job.job_id, verb=job.verb, cluster=job.cluster, new=new)
    try:
        send_requested(services)
    except Unavailable as error:  # timer_dispatch sends it within minutes
        log_event("job-not-yet-sent", level=logging.WARNING, job_id=job.job_id, code=error.code)
