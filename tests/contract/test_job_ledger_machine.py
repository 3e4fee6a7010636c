"""Jobs, workers, queues and crashes in any order: whatever happens, I8 and I9 hold.

The same machine runs against the pure rules with many examples, and with fewer against the real
catalogue. Workers, leases and queues are models of what tests/contract says of the real ones:
queues deliver at least once and in any order, a lease has one holder and a growing token.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from functions.job_watch import recover_lost
from functions.silent_jobs import LOST_AFTER, NEVER_TAKEN_AFTER, RETRIES
from functions.wiring import Services
from shared.catalogue.job_ledger import CLAIM_LAPSES
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.backup import BackupKind
from shared.domain.job import JobEventKind, JobState, fold_all
from shared.jobs.messages import AnyJob, BackupJob, JobEvent
from shared.settings import ClusterSettings, DirectoryRepository, Settings
from tests.harness.catalogue_server import running_catalogue_server
from tests.harness.fold_ledger import FoldLedger
from tests.harness.signed_repository import NOON

MINUTE = timedelta(minutes=1)
SETTINGS = Settings(
    repository=DirectoryRepository(type="directory", path="/nowhere"),
    cluster=(ClusterSettings(name="demo", dsn="host=nowhere"),),
)


@dataclass(eq=False)
class Message:
    job: AnyJob
    deliveries: int = 0
    visible: bool = True


@dataclass(eq=False)
class Worker:
    """`token` None: it has not got the lease yet. It may be too slow, and then not know it."""

    message: Message
    attempt: int
    token: int | None = None


@dataclass
class Wire:
    """Events between workers and the function app."""

    events: list[JobEvent] = field(default_factory=list)

    def approximate_length(self) -> int:
        return len(self.events)


class JobMachine(RuleBasedStateMachine):
    """`ledger` is the catalogue, or as much of it as this needs."""

    def __init__(self, ledger: Any) -> None:
        super().__init__()
        self.ledger = ledger
        self.now = NOON
        self.wire = Wire()
        self.queue: list[Message] = []
        self.workers: list[Worker] = []
        self.tokens = count(1)
        self.holder: Worker | None = None
        self.commits: dict[UUID, int] = {}
        self.succeeded: set[UUID] = set()
        self.services = Services(
            settings=SETTINGS,
            store=None,  # type: ignore[arg-type] # no document is touched
            queues={},
            events=self.wire,  # type: ignore[arg-type] # only asked how long it is
            catalogue=ledger,
            pinned=None,  # type: ignore[arg-type]
            clock=self.clock,
            new_id=lambda: UUID(int=0),
        )

    def clock(self) -> datetime:
        return self.now

    # The control plane

    @rule(number=st.sampled_from([1, 1, 1, 2]))
    def request(self, number: int) -> None:
        job = BackupJob(job_id=UUID(int=number), cluster="demo", kind=BackupKind.FULL)
        self.ledger.request(job, self.now)

    @rule(crash=st.sampled_from(["before sending", "after sending", None, None]))
    def send(self, crash: str | None) -> None:
        for job in self.ledger.claim_unsent(self.now):
            if crash != "before sending":
                self.queue.append(Message(job))
            if crash is None:
                self.ledger.mark_sent(job.job_id, self.now)

    @rule(minutes=st.sampled_from([1, LOST_AFTER // MINUTE + 1]))
    def look(self, minutes: int) -> None:
        for _ in range(minutes):
            self.now += MINUTE
            recover_lost(self.services)

    @rule(gap=st.sampled_from([CLAIM_LAPSES, LOST_AFTER, timedelta(hours=5)]))
    def be_down(self, gap: timedelta) -> None:
        """Claims lapse, and nobody listens."""
        self.now += gap + MINUTE

    @precondition(lambda self: self.wire.events)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, *, again: bool) -> None:
        event = data.draw(st.sampled_from(self.wire.events))
        self.ledger.record_event(event, self.now)
        if not again:
            self.wire.events.remove(event)

    @rule()
    def deliver_all(self) -> None:
        for event in self.wire.events:
            self.ledger.record_event(event, self.now)
        self.wire.events.clear()

    # Workers

    @precondition(lambda self: any(message.visible for message in self.queue))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        visible = [message for message in self.queue if message.visible]
        self._take(data.draw(st.sampled_from(visible)))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def acquire(self, data: st.DataObject) -> None:
        self._acquire(data.draw(st.sampled_from(self.workers)))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        self._say(data.draw(st.sampled_from(self.workers)), JobEventKind.PROGRESS)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self._acquire(worker)
        if worker.token is not None:
            self._finish(worker)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self._say(worker, JobEventKind.FINISHED, succeeded=False, error_code="postgres-gone")
        self._leave(worker, done=True)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), forgotten=st.booleans())
    def die(self, data: st.DataObject, *, forgotten: bool) -> None:
        """Its message comes back, or not; its lease stays until it expires."""
        worker = data.draw(st.sampled_from(self.workers))
        self.workers.remove(worker)
        worker.message.visible = True
        if forgotten and worker.message in self.queue:
            self.queue.remove(worker.message)

    @precondition(lambda self: self.ledger.jobs(limit=1))
    @rule()
    def be_eaten(self) -> None:
        """A container host takes whatever it is sent, and is never heard of again."""
        self.be_down(CLAIM_LAPSES)
        self.send(None)
        for message in [one for one in self.queue if one.visible]:
            self._take(message)
        self.deliver_all()
        self.workers.clear()
        self.queue.clear()
        self.look(LOST_AFTER // MINUTE + 1)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        """It lives, but renewed its message too late: another one gets it, too."""
        data.draw(st.sampled_from(self.workers)).message.visible = True

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        """The queue keeps a message for seven days only; or a person has cleared it."""
        self.queue.remove(data.draw(st.sampled_from(self.queue)))

    @rule()
    def lapse(self) -> None:
        """The lease expires, whether its holder has died or is only slow."""
        self.holder = None

    def _take(self, message: Message) -> None:
        message.visible = False
        message.deliveries += 1
        worker = Worker(message, message.deliveries)
        self.workers.append(worker)
        self._say(worker, JobEventKind.STARTED)

    def _acquire(self, worker: Worker) -> None:
        if worker.token is not None:
            return
        if self.holder is not None:
            self._say(worker, JobEventKind.RELEASED, error_code="lease-held")
            self._leave(worker, done=False)
            return
        self.holder, worker.token = worker, next(self.tokens)
        self._say(worker, JobEventKind.PROGRESS)

    def _finish(self, worker: Worker) -> None:
        job_id = worker.message.job.job_id
        if self.holder is not worker:
            self._say(worker, JobEventKind.RELEASED, error_code="lease-lost")
            self._leave(worker, done=False)
            return
        assert worker.token is not None
        self.commits.setdefault(job_id, worker.token)  # otherwise it finds what was committed
        self._say(worker, JobEventKind.FINISHED, succeeded=True, result="label")
        self._leave(worker, done=True)

    def _leave(self, worker: Worker, *, done: bool) -> None:
        self.workers.remove(worker)
        if self.holder is worker:
            self.holder = None
        if worker.message.deliveries != worker.attempt:
            return  # its receipt is old: another one has the message
        worker.message.visible = True
        if done and worker.message in self.queue:
            self.queue.remove(worker.message)

    def _say(self, worker: Worker, kind: JobEventKind, **more: object) -> None:
        job = worker.message.job
        event = JobEvent(
            job_id=job.job_id,
            cluster=job.cluster,
            verb=job.verb,
            kind=kind,
            attempt=worker.attempt,
            at=self.now,
            token=worker.token,
        )
        self.wire.events.append(event.model_copy(update=more))

    # What holds

    @invariant()
    def i9_a_success_is_never_lost(self) -> None:
        states = {one.job_id: one.progress.state for one in self.ledger.jobs(limit=99)}
        assert all(states[job_id] is JobState.SUCCEEDED for job_id in self.succeeded)
        self.succeeded |= {key for key, state in states.items() if state is JobState.SUCCEEDED}

    @invariant()
    def i9_no_more_requests_than_the_budget_allows(self) -> None:
        firsts = [one.first for one in self.ledger.jobs(limit=99)]
        assert all(firsts.count(first) <= RETRIES + 1 for first in firsts)

    @invariant()
    def i8_every_commit_was_fenced_by_a_token_of_its_own(self) -> None:
        assert len(set(self.commits.values())) == len(self.commits)

    def teardown(self) -> None:
        """Faults end. Then so does every job, and each that committed has succeeded."""
        rounds = 0
        while not self._at_rest():
            rounds += 1
            assert rounds <= 4 * (RETRIES + 1), "it comes to rest within its budget"
            self._live_on()
        for one in self.ledger.jobs(limit=99):
            assert one.progress.state.terminal, one
            assert one.progress == fold_all(self.ledger.job_reports(one.job_id))
            assert (one.progress.state is JobState.SUCCEEDED) == (one.job_id in self.commits)

    def _at_rest(self) -> bool:
        over = all(one.progress.state.terminal for one in self.ledger.jobs(limit=99))
        return over and not (self.queue or self.workers or self.wire.events)

    def _live_on(self) -> None:
        self.be_down(NEVER_TAKEN_AFTER)
        self.send(None)
        for message in [one for one in self.queue if one.visible]:
            self._take(message)
        for worker in list(self.workers):
            if self.holder not in self.workers:
                self.lapse()  # its holder has died
            self._acquire(worker)
            if worker in self.workers and worker.token is not None:
                self._finish(worker)
        self.deliver_all()
        self.look(LOST_AFTER // MINUTE + 1)


def _limits(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class ByTheRulesAlone(JobMachine):
    def __init__(self) -> None:
        super().__init__(FoldLedger())


def test_i8_i9_hold_by_the_rules_alone() -> None:
    run_state_machine_as_test(ByTheRulesAlone, settings=_limits(200, 60))


@pytest.mark.slow
@pytest.mark.integration
def test_i8_i9_hold_in_the_real_catalogue() -> None:
    with running_catalogue_server() as server:

        class InTheCatalogue(JobMachine):
            def __init__(self) -> None:
                super().__init__(PostgresCatalogue(server.database()))

        run_state_machine_as_test(InTheCatalogue, settings=_limits(3, 20))
