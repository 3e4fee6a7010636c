"""Jobs that no worker could do, or read: they end here, so that nobody waits for them for ever."""

from functions.intake import message_text
from functions.poisoned import MessagePoisoned
from functions.wiring import Services
from shared.domain.job import JobEventKind
from shared.errors import JobAbandoned
from shared.jobs.messages import AnyJob, JobEvent, parse_job


def close_job(services: Services, body: bytes) -> None:
    """Write the job's end down. Raises MessagePoisoned even so, and MessageInvalid for no job.

    A worker that reports a success after all has the last word.
    """
    job = parse_job(message_text(body))
    fact = f"no worker could do {job.verb} {job.job_id} of {job.cluster}"
    if job.cluster in {cluster.name for cluster in services.settings.cluster}:
        services.catalogue.record_event(_end(services, job, fact), services.clock())
    raise MessagePoisoned(fact)


def _end(services: Services, job: AnyJob, fact: str) -> JobEvent:
    return JobEvent(
        job_id=job.job_id,
        cluster=job.cluster,
        verb=job.verb,
        kind=JobEventKind.FINISHED,
        attempt=1,
        at=services.clock(),
        succeeded=False,
        error_code=JobAbandoned.code,
        error_fact=fact,
    )
