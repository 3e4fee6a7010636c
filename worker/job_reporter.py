"""What a running job tells the control plane: events on the queue, under its lease's token."""

from threading import Lock

from shared.domain.job import JobEventKind
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.jobs.lease import Lease, LeaseRecord, LeaseStore
from shared.jobs.messages import AnyJob, JobEvent
from shared.jobs.queue import JobQueue
from shared.telemetry.trace_context import current_traceparent
from worker.commands.services import Clocks

_PROGRESS_EVERY_S = 2.0
_MAX_FACT = 2000  # JobEvent.error_fact


class EventReporter:
    """Progress of one attempt at one job, at most one event each two seconds."""

    def __init__(self, clocks: Clocks, job: AnyJob, attempt: int, events: JobQueue) -> None:
        self._clocks = clocks
        self._job = job
        self._attempt = attempt
        self._events = events
        self._token: int | None = None
        self._last = float("-inf")
        self._lock = Lock()

    def phase(self, name: str) -> None:
        log_event("job-phase", job_id=self._job.job_id, phase=name)

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        with self._lock:
            now = self._clocks.monotonic()
            if now - self._last < _PROGRESS_EVERY_S:
                return
            self._last = now
        self.try_send(JobEventKind.PROGRESS, done_bytes=done_bytes, total_bytes=total_bytes)

    def fence(self, token: int) -> None:
        """The job's lease was granted: whoever reports under a lower token is overtaken."""
        self._token = token
        self.beat()

    def beat(self) -> None:
        """A sign of life."""
        self.try_send(JobEventKind.PROGRESS)

    def failed(self, error: PgkeepError) -> None:
        """For good. Raises what the queue raises, as does `send`."""
        fact = error.fact[:_MAX_FACT]
        self.send(JobEventKind.FINISHED, succeeded=False, error_code=error.code, error_fact=fact)

    def released(self, error: PgkeepError | None = None) -> None:
        """The queue has the message again; `error` is why."""
        code, fact = (error.code, error.fact[:_MAX_FACT]) if error else (None, None)
        self.try_send(JobEventKind.RELEASED, error_code=code, error_fact=fact)

    def try_send(self, kind: JobEventKind, **fields: object) -> None:
        """What nobody misses when it does not arrive."""
        try:
            self.send(kind, **fields)
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
                "token": self._token,
                "traceparent": current_traceparent(),
                **fields,
            }
        )
        self._events.send(event.model_dump_json())


class ReportedLeases:
    """The leases of a job: the first that it is granted fences its reports."""

    def __init__(self, leases: LeaseStore, reporter: EventReporter) -> None:
        self._leases = leases
        self._reporter = reporter
        self._fenced = False

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        lease = self._leases.acquire(name, holder, ttl_s)
        if not self._fenced:
            self._fenced = True
            self._reporter.fence(lease.token)
        return lease

    def renew(self, lease: Lease) -> None:
        self._leases.renew(lease)

    def release(self, lease: Lease) -> None:
        self._leases.release(lease)

    def current(self, name: str) -> LeaseRecord | None:
        return self._leases.current(name)
