"""The container's loop: take a job, do it, report it. At least once, never twice at one time.

A message stays hidden while its job runs (renewed by a thread) and is deleted when the job reached
a terminal state. A killed container's message reappears by itself. Jobs are idempotent by job id.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from shared import adapters
from shared.domain.job import JobEventKind
from shared.errors import JobAbandoned, MessageGone, MessageInvalid, PgkeepError
from shared.event_log import log_event
from shared.jobs.messages import (
    EVENT_QUEUE,
    JOB_QUEUES,
    AnyJob,
    JobEvent,
    parse_job,
)
from shared.jobs.queue import JobQueue, QueueMessage
from worker.commands.perform import perform
from worker.commands.services import Services

VISIBILITY_S = 60
# Storage queues have no push: an idle worker asks this often (a list of two queues costs little).
IDLE_POLL_S = 1.0
# The first and four more tries; afterwards the job is reported as failed.
MAX_ATTEMPTS = 5
RETRY_DELAY_S = 10  # times the attempt: a service that was busy is left alone for a while
_PROGRESS_EVERY_S = 2.0


def run(services: Services, queues: Sequence[str], *, once: bool, stop: threading.Event) -> None:
    """Serve the queues (default: all job queues) until `stop` is set; with `once`, one job."""
    opened = [adapters.job_queue(services.settings, name) for name in queues or JOB_QUEUES]
    events = adapters.job_queue(services.settings, EVENT_QUEUE)
    for queue in (*opened, events):
        queue.create_if_missing()
    if once:
        any(serve_one(services, queue, events) for queue in opened)
        return
    while not stop.is_set():
        served = [serve_one(services, queue, events) for queue in opened if not stop.is_set()]
        if not any(served):
            stop.wait(IDLE_POLL_S)


def serve_one(services: Services, queue: JobQueue, events: JobQueue) -> bool:
    """Receive and do one job. Returns whether there was one."""
    message = queue.receive(VISIBILITY_S)
    if message is None:
        return False
    try:
        job = parse_job(message.body)
    except MessageInvalid as error:
        log_event("job-message-refused", code=error.code, fact=error.fact)
        queue.delete(message)
        return True
    reporter = EventReporter(services, job, message.dequeue_count, events)
    with _kept_hidden(queue, message, reporter) as latest:
        if message.dequeue_count > MAX_ATTEMPTS:
            terminal = _give_up(job, reporter)
        else:
            terminal = _do(services, job, message.dequeue_count, reporter)
    try:
        if terminal:
            queue.delete(latest())
        else:
            queue.renew(latest(), RETRY_DELAY_S * message.dequeue_count)
    except MessageGone as error:
        # Another worker has it by now. Jobs are idempotent: it will find this one's result.
        log_event("job-message-gone", job_id=job.job_id, code=error.code, fact=error.fact)
    return True


def _do(services: Services, job: AnyJob, attempt: int, reporter: "EventReporter") -> bool:
    """Returns whether the job is over, well or not; otherwise it will be delivered again."""
    reporter.send(JobEventKind.STARTED)
    log_event("job-started", job_id=job.job_id, verb=job.verb, cluster=job.cluster)
    try:
        result = perform(replace(services, progress=reporter), job)
    except PgkeepError as error:
        again = error.retryable and attempt < MAX_ATTEMPTS
        log_event("job-failed", job_id=job.job_id, code=error.code, fact=error.fact, again=again)
        if not again:
            reporter.send(
                JobEventKind.FINISHED,
                succeeded=False,
                error_code=error.code,
                error_fact=error.fact[:2000],
            )
        return not again
    log_event("job-finished", job_id=job.job_id, result=result)
    reporter.send(JobEventKind.FINISHED, succeeded=True, result=result)
    return True


def _give_up(job: AnyJob, reporter: "EventReporter") -> bool:
    """A job that killed its worker each time must not do so for ever."""
    reporter.send(
        JobEventKind.FINISHED,
        succeeded=False,
        error_code=JobAbandoned.code,
        error_fact=f"no worker survived {MAX_ATTEMPTS} attempts",
    )
    log_event("job-abandoned", job_id=job.job_id)
    return True


@contextmanager
def _kept_hidden(
    queue: JobQueue, message: QueueMessage, reporter: "EventReporter"
) -> Iterator[Callable[[], QueueMessage]]:
    """Renews the message's visibility meanwhile and reports that the job lives, whatever it does.

    Yields a way to the newest receipt.
    """
    latest = message
    done = threading.Event()

    def renew() -> None:
        nonlocal latest
        while not done.wait(VISIBILITY_S / 3):
            try:
                latest = queue.renew(latest, VISIBILITY_S)
                reporter.beat()
            except PgkeepError as error:
                # The lease and the job's idempotency protect; somebody else may start it again.
                log_event("job-renewal-failed", code=error.code, fact=error.fact)

    thread = threading.Thread(target=renew, name="pgkeep-visibility", daemon=True)
    thread.start()
    try:
        yield lambda: latest
    finally:
        done.set()
        thread.join()


class EventReporter:
    """Progress of one job as events on the queue, at most one each two seconds."""

    def __init__(self, services: Services, job: AnyJob, attempt: int, events: JobQueue) -> None:
        self._clocks = services.clocks
        self._job = job
        self._attempt = attempt
        self._events = events
        self._last = float("-inf")
        self._lock = threading.Lock()

    def phase(self, name: str) -> None:
        log_event("job-phase", job_id=self._job.job_id, phase=name)

    def beat(self) -> None:
        """A sign of life. Raises what the queue raises."""
        self.send(JobEventKind.PROGRESS)

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        with self._lock:
            now = self._clocks.monotonic()
            if now - self._last < _PROGRESS_EVERY_S:
                return
            self._last = now
        try:
            self.send(JobEventKind.PROGRESS, done_bytes=done_bytes, total_bytes=total_bytes)
        except PgkeepError as error:
            log_event("job-progress-lost", code=error.code, fact=error.fact)

    def send(self, kind: JobEventKind, **fields: object) -> None:
        event = JobEvent.model_validate(
            {
                "job_id": self._job.job_id,
                "cluster": self._job.cluster,
                "verb": self._job.verb,
                "kind": kind,
                "attempt": self._attempt,
                "at": self._clocks.now(),
                **fields,
            }
        )
        self._events.send(event.model_dump_json())
