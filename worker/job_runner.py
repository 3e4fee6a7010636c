"""The container's loop: take a job, do it, report it. At least once, never twice at one time.

A message stays hidden while its job runs (renewed by a thread) and is deleted when the job reached
a terminal state. A killed container's message reappears by itself; one that is asked to go gives it
back. Jobs are idempotent by job id. What no worker can do goes to the queue's poison queue, where
the function app finds it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from shared import adapters
from shared.domain.job import JobEventKind
from shared.errors import (
    JobAbandoned,
    LeaseHeld,
    LeaseLost,
    MessageGone,
    MessageInvalid,
    PgkeepError,
    StorageDenied,
)
from shared.event_log import log_event
from shared.jobs.azure_queue import AzureQueue
from shared.jobs.messages import (
    EVENT_QUEUE,
    JOB_QUEUES,
    MAX_MESSAGE,
    POISON,
    AnyJob,
    MessageTooNew,
    parse_job,
)
from shared.jobs.queue import JobQueue, QueueMessage
from shared.settings import Settings
from worker.commands.perform import perform
from worker.commands.services import Services
from worker.job_reporter import EventReporter, ReportedLeases
from worker.job_watch import watched
from worker.wiring import Interrupted

VISIBILITY_S = 60
# Storage queues have no push: an idle worker asks this often (a list of four queues costs little).
IDLE_POLL_S = 1.0
# The first and four more tries; afterwards the job is reported as failed.
MAX_ATTEMPTS = 5
RETRY_DELAY_S = 10  # times the attempt: a service that was busy is left alone for a while
# How often a message of a newer release is left for a newer worker, and for how long each time;
# fewer than the attempts, so that one who can read it has some left.
NEWER_TRIES = 3
NEWER_DELAY_S = 60
# From being asked to go to giving the job back. Container Apps and Kubernetes kill after 30 s,
# unless they are told otherwise; what is left is for closing connections and giving up the lease.
GRACE_S = 15


@dataclass(frozen=True, slots=True)
class Inbox:
    """A queue of jobs, and where those go that nobody can do."""

    jobs: JobQueue
    poison: JobQueue


def run(services: Services, queues: Sequence[str], *, once: bool, stop: threading.Event) -> None:
    """Serve the queues (default: all job queues) until `stop` is set; with `once`, one job."""
    inboxes = [_open(services.settings, name) for name in queues or JOB_QUEUES]
    events = adapters.job_queue(services.settings, EVENT_QUEUE)
    _make(events)
    with suppress(Interrupted):  # between two jobs, nothing is left to give back
        if once:
            any(serve_one(services, inbox, events) for inbox in inboxes)
            return
        while not stop.is_set():
            services.alive()
            served = [serve_one(services, item, events) for item in inboxes if not stop.is_set()]
            if not any(served):
                stop.wait(IDLE_POLL_S)


def _open(settings: Settings, name: str) -> Inbox:
    jobs, poison = (adapters.job_queue(settings, queue) for queue in (name, name + POISON))
    _make(jobs)
    _make(poison)
    return Inbox(jobs, poison)


def _make(queue: AzureQueue) -> None:
    try:
        queue.create_if_missing()
    except StorageDenied as error:  # whoever deployed it made the queues, and us no owner of them
        log_event("queue-not-made", code=error.code, fact=error.fact)


def serve_one(services: Services, inbox: Inbox, events: JobQueue) -> bool:
    """Receive and do one job. Returns whether there was one."""
    message = inbox.jobs.receive(VISIBILITY_S)
    if message is None:
        return False
    try:
        job = parse_job(message.body)
    except MessageInvalid as error:
        _refuse(inbox, message, error)
        return True
    reporter = EventReporter(services.clocks, job, message.dequeue_count, events)
    if message.dequeue_count > MAX_ATTEMPTS:
        _abandon(inbox, message, job, reporter)
    else:
        _serve(services, inbox.jobs, message, job, reporter)
    return True


def _serve(
    services: Services, queue: JobQueue, message: QueueMessage, job: AnyJob, reporter: EventReporter
) -> None:
    newest = _Receipt(message)
    try:
        with _kept_hidden(queue, newest, reporter, services.alive):
            delay = _do(services, job, message.dequeue_count, reporter)
    except Interrupted:
        log_event("job-interrupted", job_id=job.job_id)
        reporter.released()
        delay = 0
    _settle(queue, newest.message, job, delay)


def _do(services: Services, job: AnyJob, attempt: int, reporter: EventReporter) -> int | None:
    """None when the job is over, well or not; otherwise after how many seconds to try again."""
    leases = ReportedLeases(services.leases, reporter)
    with watched(replace(services, progress=reporter, leases=leases), job) as (watch, observed):
        reporter.send(JobEventKind.STARTED)
        log_event("job-started", job_id=job.job_id, verb=job.verb, cluster=job.cluster)
        try:
            result = perform(observed, job)
        except PgkeepError as error:
            again = _may_get_better(error) and attempt < MAX_ATTEMPTS
            watch.failed(error, again=again)
            log_event(
                "job-failed", job_id=job.job_id, code=error.code, fact=error.fact, again=again
            )
            if not again:
                reporter.failed(error)
                return None
            reporter.released(error)
            return RETRY_DELAY_S * attempt
        watch.succeeded(result)
        log_event("job-finished", job_id=job.job_id, result=result)
        reporter.send(JobEventKind.FINISHED, succeeded=True, result=result)
    return None


def _may_get_better(error: PgkeepError) -> bool:
    """A lease is often held by our own job's last worker, which has died: that passes."""
    return error.retryable or isinstance(error, LeaseHeld | LeaseLost)


def _settle(queue: JobQueue, message: QueueMessage, job: AnyJob, delay: int | None) -> None:
    try:
        if delay is None:
            queue.delete(message)
        else:
            queue.renew(message, delay)
    except MessageGone as error:
        # Another worker has it by now. Jobs are idempotent: it will find this one's result.
        log_event("job-message-gone", job_id=job.job_id, code=error.code, fact=error.fact)


def _refuse(inbox: Inbox, message: QueueMessage, error: MessageInvalid) -> None:
    left = isinstance(error, MessageTooNew) and message.dequeue_count <= NEWER_TRIES
    log_event("job-message-refused", code=error.code, fact=error.fact, left_for_others=left)
    if left:
        with suppress(MessageGone):
            inbox.jobs.renew(message, NEWER_DELAY_S)
    else:
        _put_aside(inbox, message)


def _abandon(inbox: Inbox, message: QueueMessage, job: AnyJob, reporter: EventReporter) -> None:
    """A job that killed its worker each time must not do so for ever."""
    log_event("job-abandoned", job_id=job.job_id)
    reporter.failed(JobAbandoned(f"no worker survived {MAX_ATTEMPTS} attempts"))
    _put_aside(inbox, message)


def _put_aside(inbox: Inbox, message: QueueMessage) -> None:
    """Sent first, deleted second: a crash in between makes it twice, and never not at all."""
    fitting = message.body.encode()[:MAX_MESSAGE].decode(errors="ignore")
    inbox.poison.send(fitting)
    with suppress(MessageGone):
        inbox.jobs.delete(message)


@dataclass(slots=True)
class _Receipt:
    """Each renewal gives the message a new one."""

    message: QueueMessage


@contextmanager
def _kept_hidden(
    queue: JobQueue, newest: _Receipt, reporter: EventReporter, alive: Callable[[], None]
) -> Iterator[None]:
    """Meanwhile renew the message's visibility, and report that the job lives."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(VISIBILITY_S / 3):
            alive()
            reporter.beat()
            try:
                newest.message = queue.renew(newest.message, VISIBILITY_S)
            except PgkeepError as error:
                # The lease and the job's idempotency protect; somebody else may start it again.
                log_event("job-renewal-failed", code=error.code, fact=error.fact)

    thread = threading.Thread(target=renew, name="pgkeep-visibility", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
