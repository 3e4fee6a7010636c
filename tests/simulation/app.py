"""The function app: its timers and triggers in virtual time, around the real functions.

Each invocation may fail, die in the midst or lose an answer; messages are tried five times and then
go to their poison queues, as the host does it (host.json).
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Final

from functions.intake import message_text, take_in_backup
from functions.poisoned import take_in_poison
from functions.poisoned_jobs import close_job
from functions.queue_job_event import take_in_event
from functions.queue_wal_event import take_in_wal_event
from functions.timer_dispatch import dispatch
from functions.timer_freshness import look_at_all
from functions.timer_reconcile import reconcile
from functions.wiring import Services
from shared.errors import PgkeepError
from shared.jobs.messages import WAL_EVENT_QUEUE
from shared.jobs.queue import JobQueue, QueueMessage
from shared.jobs.wal_events import WalEvent
from shared.repository.blob_store import BlobName
from tests.harness.memory_queue import MemoryQueue
from tests.simulation.engine import Engine, minutes
from tests.simulation.faults import Faults
from tests.simulation.weather import Killed, Part, Weather

_TRIES: Final = 5
_AGAIN: Final = timedelta(seconds=30)
_MINUTE: Final = timedelta(minutes=1)

TakeIn = Callable[[Services, bytes], None]


@dataclass
class Inbox:
    """A queue that triggers a function. `own` is the queue itself, where the host counts tries."""

    name: str
    queue: JobQueue
    own: JobQueue
    take_in: TakeIn
    poison: "Inbox | None" = None


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often the slow timers fire, and the whole is judged: each costs as the fleet is large."""

    look: timedelta = timedelta(hours=8)
    reconcile: timedelta = timedelta(hours=8)
    judge: timedelta = timedelta(days=1)


@dataclass
class FunctionApp:
    """`dispatched` are the times, by its own clock and sorted, of dispatches that went through."""

    engine: Engine
    random: Random
    faults: Faults
    weather: Weather
    services: Services
    events: Inbox
    blobs: Inbox
    busy: Callable[[], bool]
    next_turn: Callable[[], datetime | None]
    every_minute: bool = False
    dispatched: list[datetime] = field(default_factory=list)
    dropped: int = 0
    _next_minute: datetime | None = None

    def now(self) -> datetime:
        return self.engine.now + self.weather.ahead

    def tell_event(self, body: str) -> None:
        self._tell(self.events, body)

    def tell_blob(self, name: BlobName) -> None:
        """Event Grid has its own way, past the queues that may be down."""
        self._tell(self.blobs, f"{name.container} {name.path}", to=self.blobs.own)

    def tell_wal(self, event: WalEvent) -> bool:
        """Writers report each minute: what fails is soon said again."""
        body = event.model_dump_json().encode()
        return any(
            self.invoke(partial(take_in_wal_event, self.services, body)) for _ in range(_TRIES)
        )

    def put_aside(self, body: str) -> None:
        """A job that no worker could do: the host finds it in the queue's poison queue."""
        queue = f"{WAL_EVENT_QUEUE}-jobs-poison"
        self._again(lambda: take_in_poison(self.services, queue, body.encode(), close_job))

    def invoke(self, act: Callable[[], None]) -> bool:
        """One run of a function; whether it went through."""
        if self.weather.is_down(Part.APP):
            return False
        chance = self.random.random()
        if chance < self.faults.app_dies:
            self.weather.fatal_call = self.random.randint(1, 12)
        elif chance < self.faults.app_dies + self.faults.reply_lost:
            self.weather.lost_reply = self.random.randint(1, 12)
        try:
            act()
        except (PgkeepError, Killed):
            return False
        finally:
            self.weather.fatal_call = self.weather.lost_reply = None
            self.wake()
        return True

    def wake(self) -> None:
        """The next minute's dispatch has something to do, or may have."""
        soon = _whole_minute(self.engine.now)
        if self._next_minute is None or self._next_minute > soon:
            self._next_minute = soon
            self.engine.at(soon, self._minute)

    def look(self) -> bool:
        return self.invoke(lambda: look_at_all(self.services))

    def reconcile(self) -> bool:
        return self.invoke(lambda: reconcile(self.services))

    def _minute(self) -> None:
        """Minutes in which nothing is due, asked for or running would find nothing to do."""
        if self._next_minute != self.engine.now:
            return  # somebody woke us before
        self._next_minute = None
        if self.invoke(lambda: dispatch(self.services)):
            insort(self.dispatched, self.now())
        self._next_minute = self._next_busy_minute()
        self.engine.at(self._next_minute, self._minute)

    def _next_busy_minute(self) -> datetime:
        soon = _whole_minute(self.engine.now)
        turn = self.next_turn()
        if self.every_minute or self.busy() or turn is None:
            return soon
        return max(soon, _whole_minute(turn - self.weather.ahead - timedelta(microseconds=1)))

    def _tell(self, inbox: Inbox, body: str, to: JobQueue | None = None) -> None:
        chance, faults = self.random.random(), self.faults
        if chance < faults.event_lost:
            self.weather.fire("an event was lost")
            return
        chance -= faults.event_lost
        if chance < faults.event_late:
            self.weather.fire("an event came late")
            self._send(inbox, body, to, int(self.random.uniform(60, 7200)))
            return
        self._send(inbox, body, to, 0)
        if chance < faults.event_late + faults.event_twice:
            self.weather.fire("an event came twice")
            self._send(inbox, body, to, int(self.random.uniform(0, 600)))

    def _send(self, inbox: Inbox, body: str, to: JobQueue | None, delay_s: int) -> None:
        (to or inbox.queue).send(body, delay_s=delay_s)
        pause = timedelta(seconds=delay_s + self.random.uniform(0.5, 5))
        self.engine.after(pause, lambda: self._drain(inbox))

    def _drain(self, inbox: Inbox) -> None:
        """Take in what is there; what fails comes again."""
        if self.weather.is_down(Part.APP):
            self.engine.at(self.weather.down_until[Part.APP], lambda: self._drain(inbox))
            return
        while (message := inbox.own.receive(int(_AGAIN.total_seconds()))) is not None:
            if message.dequeue_count > _TRIES:
                self._poison(inbox, message)
            elif self.invoke(partial(inbox.take_in, self.services, message.body.encode())):
                inbox.own.delete(message)
            else:
                self.engine.after(_AGAIN * 1.1, lambda: self._drain(inbox))

    def _poison(self, inbox: Inbox, message: QueueMessage) -> None:
        inbox.own.delete(message)
        if inbox.poison is None:
            self.dropped += 1
            self.weather.fire("a message was given up")
            return
        self.weather.fire("a message was poisoned")
        inbox.poison.own.send(message.body)
        self.engine.after(minutes(1), lambda: self._drain(inbox.poison or inbox))

    def _again(self, act: Callable[[], None], tries: int = _TRIES) -> None:
        if not self.invoke(act) and tries > 0:
            self.engine.after(_AGAIN, lambda: self._again(act, tries - 1))


def _whole_minute(after: datetime) -> datetime:
    """The first that is later."""
    return after.replace(second=0, microsecond=0) + _MINUTE


def event_inbox(name: str, queue: JobQueue, own: JobQueue, clock: Callable[[], float]) -> Inbox:
    def take_in_poisoned(services: Services, body: bytes) -> None:
        take_in_poison(services, f"{name}-poison", body, take_in_event)

    last = MemoryQueue(clock)
    return Inbox(name, queue, own, take_in_event, Inbox(name, last, last, take_in_poisoned))


def blob_inbox(clock: Callable[[], float]) -> Inbox:
    def take_in(services: Services, body: bytes) -> None:
        container, _, path = message_text(body).partition(" ")
        take_in_backup(services, BlobName(container, path))

    def take_in_poisoned(services: Services, body: bytes) -> None:
        take_in_poison(services, "webjobs-blobtrigger-poison", body, take_in)

    queue, last = MemoryQueue(clock), MemoryQueue(clock)
    return Inbox("blobs", queue, queue, take_in, Inbox("blobs", last, last, take_in_poisoned))
