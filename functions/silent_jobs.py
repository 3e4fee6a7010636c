"""Jobs whose worker fell silent: when to give one up, and what is asked for in its place.

Silence counts only while we listened. A worker beats each 20 s. When nothing comes, the worker may
be gone; but just as well this app may have been down, the queue out of reach, or a backlog not yet
worked off. So each minute's look is noted: it hears when the event queue answers and holds no more
messages than jobs run, which is less than one beat of each. Only the unbroken series of such looks
up to now can prove that a worker is silent, and all of it by this app's clock, whatever the clocks
of the workers' hosts say.

Of a job that seems to wait nothing proves anything: it is asked for again now and then, under its
own id, which workers recognise.
"""

import logging
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from functions.wiring import Services
from shared.catalogue.ports import JobRecord
from shared.domain.job import JobEventKind, JobVerb
from shared.errors import JobLost, PgkeepError
from shared.event_log import log_event
from shared.jobs.messages import AnyJob, JobEvent
from shared.telemetry.metric_names import JOB_OUTCOMES

# Three beats of the worker (worker.job_runner): one may be lost, and one late.
HEARTBEAT: Final = timedelta(seconds=60)
# From the worker through the queue to the catalogue; the host asks an idle queue once a minute.
DELIVERY: Final = timedelta(seconds=60)
LOST_AFTER: Final = 2 * HEARTBEAT + DELIVERY
# Queues forget a message after seven days (shared.jobs.azure_queue): nobody will take it any more.
NEVER_TAKEN_AFTER: Final = timedelta(days=7, hours=1)
# A job that seems to wait may be over, its last events lost; and as long as it waits, its cluster
# gets no other. A worker that is asked again tells what it finds done.
ASKED_AGAIN_AFTER: Final = timedelta(hours=6)
# Requests after the first. What loses three workers in a row needs a person, not a fourth.
RETRIES: Final = 2
# A restore writes onto somebody's target, and maintenance has had its window: nobody repeats these
# unasked.
RETRIED: Final = frozenset(
    {JobVerb.BACKUP, JobVerb.VERIFY, JobVerb.DRILL, JobVerb.EXPIRE, JobVerb.AUDIT}
)
_RETRIES_OF: Final = UUID("4c0b5c3a-8a0e-5f27-9a35-1f6c6f1f0d52")


def give_up_silent_jobs(services: Services) -> None:
    """Declare lost what is, and ask anew for what may be repeated; `send_requested` sends it."""
    now = services.clock()
    listening_since = services.catalogue.listen(now, hears=_hears(services))
    quiet_since = now - LOST_AFTER
    if listening_since <= quiet_since:
        for job in services.catalogue.silent_jobs(quiet_since):
            fact = f"nothing was heard of the worker since {job.received_at:%F %T%z}"
            _give_up(services, job, _retry(job), quiet_since, fact)
    for job in services.catalogue.never_taken(now - ASKED_AGAIN_AFTER):
        _ask_again(services, job, now)


def _ask_again(services: Services, job: JobRecord, now: datetime) -> None:
    """The same message once more, until the job is too old for any."""
    quiet_since, asked_at = now - ASKED_AGAIN_AFTER, job.requested_at or job.created_at or now
    if asked_at < now - NEVER_TAKEN_AFTER:
        fact = f"no worker has taken it since {asked_at:%F %T%z}"
        _give_up(services, job, None, quiet_since, fact)
    elif job.verb in RETRIED and services.catalogue.send_again(job.job_id, quiet_since=quiet_since):
        log_event("job-sent-again", level=logging.WARNING, job_id=job.job_id, cluster=job.cluster)


def _hears(services: Services) -> bool:
    try:
        waiting = services.events.approximate_length()
    except PgkeepError as error:
        log_event("events-unheard", level=logging.WARNING, code=error.code, fact=error.fact)
        return False
    return waiting <= len(services.catalogue.running_jobs())


def _give_up(
    services: Services, job: JobRecord, retry: AnyJob | None, quiet_since: datetime, fact: str
) -> None:
    """A failed end in the worker's stead. Should the worker succeed after all, that stands."""
    now = services.clock()
    end = JobEvent(
        job_id=job.job_id,
        cluster=job.cluster,
        verb=job.verb,
        kind=JobEventKind.FINISHED,
        attempt=max(1, job.progress.run.attempt),
        at=now,
        succeeded=False,
        error_code=JobLost.code,
        error_fact=fact,
        token=job.progress.token,
    )
    if services.catalogue.give_up(end, retry, quiet_since=quiet_since, now=now):
        services.telemetry.record(JOB_OUTCOMES, 1, verb=job.verb.value, outcome="lost")
        again = None if retry is None else retry.job_id
        level = logging.ERROR
        log_event("job-lost", level=level, job_id=job.job_id, cluster=job.cluster, retry=again)


def _retry(job: JobRecord) -> AnyJob | None:
    """The same request under the id of the next run, while the budget lasts."""
    if job.request is None or job.verb not in RETRIED or job.retry >= RETRIES:
        return None
    return job.request.model_copy(update={"job_id": retry_id(job.first, job.retry + 1)})


def retry_id(first: UUID, number: int) -> UUID:
    """The same for the same retry, whoever makes it."""
    return uuid5(_RETRIES_OF, f"{first}/{number}")
