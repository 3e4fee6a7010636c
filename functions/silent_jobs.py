"""Jobs whose worker fell silent: when to give one up, and how that is written down."""

from datetime import datetime, timedelta

from functions.wiring import Services
from shared.catalogue.ports import JobRecord
from shared.domain.job import JobEventKind
from shared.errors import JobLost
from shared.jobs.messages import JobEvent

# Workers report at least each minute; fifteen survive a restart of the host and a full queue.
LOST_AFTER = timedelta(minutes=15)


def is_silent(job: JobRecord, now: datetime) -> bool:
    return job.progress.heard_at is None or now - job.progress.heard_at > LOST_AFTER


def declare_lost(services: Services, job: JobRecord) -> None:
    """A failed end in the worker's stead. Should the worker succeed after all, that stands."""
    services.catalogue.record_event(
        JobEvent(
            job_id=job.job_id,
            cluster=job.cluster,
            verb=job.verb,
            kind=JobEventKind.FINISHED,
            attempt=max(1, job.progress.attempt),
            at=services.clock(),
            succeeded=False,
            error_code=JobLost.code,
            error_fact=f"nothing was heard of the worker since {job.progress.heard_at}",
        ),
        services.clock(),
    )
