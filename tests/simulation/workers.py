"""The container host: takes jobs as worker.job_runner does, in virtual time, and dies now and then.

Modelled are durations, deaths, pauses, leases and retries. The messages, the events, the queue and
its visibility are real; what the verbs do is in `verbs`.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from shared.domain.job import JobEventKind
from shared.errors import (
    JobAbandoned,
    LeaseHeld,
    LeaseLost,
    MessageGone,
    PgkeepError,
    Refused,
    Unavailable,
)
from shared.jobs.lease import Lease
from shared.jobs.messages import AnyJob, JobEvent, parse_job
from shared.jobs.queue import JobQueue, QueueMessage
from tests.simulation.engine import Process, minutes
from tests.simulation.weather import Part
from tests.simulation.world import World
from worker.job_runner import MAX_ATTEMPTS, RETRY_DELAY_S, VISIBILITY_S

# The real one beats each 20 s; fewer make the same difference at less cost.
_BEAT: Final = timedelta(seconds=50)
_IDLE: Final = timedelta(seconds=2)
_REAPPEARS: Final = timedelta(seconds=VISIBILITY_S + 1)
_RETRYABLE: Final = (LeaseHeld, LeaseLost)

# What a verb does: it pauses while it works, and returns what the event calls `result`.
Work = Generator[timedelta, None, str | None]


class Died(Exception):
    """The worker is gone, without a word."""


class Mishap(Refused):
    """A job that cannot be done, and will not be possible later either."""

    code = "mishap"


class PassingMishap(Unavailable):
    """A job that cannot be done now."""

    code = "passing-mishap"


@dataclass
class Run:
    """One attempt at one job by one worker, whose clock may be wrong."""

    world: World
    queue: JobQueue
    message: QueueMessage
    job: AnyJob
    lease: Lease | None = None

    @property
    def now(self) -> datetime:
        """As this worker's host sees it."""
        return self.world.engine.now + self.world.host_ahead

    def report(self, kind: JobEventKind, **fields: Any) -> None:
        event = JobEvent(
            job_id=self.job.job_id,
            cluster=self.job.cluster,
            verb=self.job.verb,
            kind=kind,
            attempt=self.message.dequeue_count,
            at=self.now,
            token=self.lease.token if self.lease else None,
            **fields,
        )
        self.world.app.tell_event(event.model_dump_json())

    def try_report(self, kind: JobEventKind, **fields: Any) -> None:
        try:
            self.report(kind, **fields)
        except PgkeepError:
            self.world.weather.fire("a sign of life was not sent")

    def hold(self, name: str) -> None:
        """Take a lease; raises LeaseHeld."""
        self.lease = self.world.leases.acquire(name, str(self.job.job_id), VISIBILITY_S)
        self.try_report(JobEventKind.PROGRESS)

    def check(self) -> None:
        """Just before a commit. Raises LeaseLost."""
        if self.lease is not None:
            self.world.leases.renew(self.lease)

    def work(self, span: timedelta) -> Work:
        """Takes so long, with signs of life; or dies, or freezes, in the midst."""
        ends = self.world.engine.now + span
        dies_at = self._strikes(self.world.faults.worker_dies, "a worker died", span)
        freezes_at = self._strikes(self.world.faults.worker_freezes, "a worker froze", span)
        while (now := self.world.engine.now) < ends:
            if dies_at is not None and now >= dies_at:
                raise Died
            if freezes_at is not None and now >= freezes_at:
                freezes_at = None
                yield minutes(self.world.random.uniform(2, 20))
            yield min(_BEAT, ends - now) if ends > now else timedelta()
            self._beat()
        return None

    def _beat(self) -> None:
        if self.world.weather.is_down(Part.WORKERS):
            raise Died
        self.check()
        try:
            self.message = self.queue.renew(self.message, VISIBILITY_S)
        except PgkeepError:
            self.world.weather.fire("a message was not renewed")
        self.try_report(JobEventKind.PROGRESS)

    def _strikes(self, chance: float, fault: str, span: timedelta) -> datetime | None:
        if self.world.random.random() >= chance:
            return None
        self.world.weather.fire(fault)
        return self.world.engine.now + span * self.world.random.random()


@dataclass
class Workers:
    """Any number of them: whoever is asked comes."""

    world: World
    perform: Callable[[Run], Work]
    put_aside: Callable[[str], None]

    def call(self, queue: str, pause: timedelta) -> None:
        """Somebody looks into the queue a little later."""
        self.world.engine.after(pause, lambda: self._look(queue))

    def _look(self, name: str) -> None:
        world, queue = self.world, self.world.worker_queues[name]
        if world.weather.is_down(Part.WORKERS):
            self.call(name, world.weather.down_until[Part.WORKERS] - world.engine.now)
            return
        try:
            message = queue.receive(VISIBILITY_S)
        except PgkeepError:
            self.call(name, minutes(1))
            return
        if message is not None:
            run = Run(world, queue, message, parse_job(message.body))
            world.engine.spawn(self._serve(name, run))
            self.call(name, _IDLE)

    def _serve(self, name: str, run: Run) -> Process:
        run.world.note_asked(run.job)
        try:
            pause = yield from self._attempt(run)
        except Died:
            pause = _REAPPEARS
        else:
            pause = self._settle(run, pause)
        if run.lease is not None and pause is not _REAPPEARS:
            run.world.leases.release(run.lease)
        if pause is not None:
            self.call(name, pause)

    def _settle(self, run: Run, pause: timedelta | None) -> timedelta | None:
        try:
            if pause is None:
                run.queue.delete(run.message)
            else:
                run.queue.renew(run.message, int(pause.total_seconds()))
        except MessageGone:
            run.world.weather.fire("a message went to another worker")
        except PgkeepError:
            return _REAPPEARS
        return pause

    def _attempt(self, run: Run) -> Generator[timedelta, None, timedelta | None]:
        """None when the job is over, well or not; otherwise after how long to try again."""
        if run.message.dequeue_count > MAX_ATTEMPTS:
            self._finish(run, JobAbandoned(f"no worker survived {MAX_ATTEMPTS} attempts"))
            self.put_aside(run.message.body)
            return None
        self._send(run, JobEventKind.STARTED)
        try:
            self._fail_by_chance(run)
            result = yield from self.perform(run)
        except PgkeepError as error:
            return self._refused(run, error)
        self._send(run, JobEventKind.FINISHED, succeeded=True, result=result)
        return None

    def _refused(self, run: Run, error: PgkeepError) -> timedelta | None:
        attempt = run.message.dequeue_count
        if (error.retryable or isinstance(error, _RETRYABLE)) and attempt < MAX_ATTEMPTS:
            fields = {"error_code": error.code, "error_fact": error.fact}
            run.try_report(JobEventKind.RELEASED, **fields)
            return timedelta(seconds=RETRY_DELAY_S * attempt)
        self._finish(run, error)
        return None

    def _finish(self, run: Run, error: PgkeepError) -> None:
        fields = {"error_code": error.code, "error_fact": error.fact}
        self._send(run, JobEventKind.FINISHED, succeeded=False, **fields)

    def _send(self, run: Run, kind: JobEventKind, **fields: Any) -> None:
        """What must arrive: a worker that cannot say it ends, and the job is done again."""
        try:
            run.report(kind, **fields)
        except PgkeepError:
            raise Died from None

    def _fail_by_chance(self, run: Run) -> None:
        world = self.world
        chance = world.random.random()
        if chance < world.faults.job_fails:
            world.weather.fire("a job failed")
            raise Mishap(f"{run.job.verb} cannot be done, by chance")
        if chance < world.faults.job_fails + world.faults.job_fails_once:
            world.weather.fire("a job failed once")
            raise PassingMishap(f"{run.job.verb} cannot be done now, by chance")
