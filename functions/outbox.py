"""Requested jobs to their queues: recorded first, sent second, so that no crash loses one.

A request that was recorded but not sent stays in the catalogue, and whoever runs next sends it.
A crash after sending makes a second message with the same job id, which workers recognise.
"""

from functions.wiring import Services
from shared.event_log import log_event
from shared.jobs.messages import AnyJob, queue_of
from shared.telemetry.trace_context import current_traceparent


def send_requested(services: Services) -> int:
    """Send every job that waits for it, and that no other instance is sending; how many."""
    sent = 0
    while jobs := services.catalogue.claim_unsent(services.clock()):
        for job in jobs:
            services.queues[queue_of(job)].send(_traced(job).model_dump_json())
            services.catalogue.mark_sent(job.job_id, services.clock())
            log_event("job-sent", job_id=job.job_id, verb=job.verb, cluster=job.cluster)
        sent += len(jobs)
    return sent


def _traced(job: AnyJob) -> AnyJob:
    """A child of whatever asked for it, if that is known; else of whatever sends it."""
    if job.traceparent is not None:
        return job
    return job.model_copy(update={"traceparent": current_traceparent()})
