"""A job queue in memory, with a clock of one's own: for tests that need no Azurite.

It passes the same contract as the Azure adapter, tests/contract/test_job_queue.py.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from threading import Lock

from shared.errors import MessageGone
from shared.jobs.queue import QueueMessage, check_body


@dataclass(frozen=True, slots=True)
class _Stored:
    message: QueueMessage
    visible_at: float
    sent_at: datetime


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryQueue:
    """See shared.jobs.queue.JobQueue for the contract. `wall` says when messages were sent."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], datetime] = _now
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = Lock()
        self._serial = count(1)
        self._stored: dict[str, _Stored] = {}

    def send(self, body: str, *, delay_s: int = 0) -> None:
        check_body(body)
        with self._lock:
            message = QueueMessage(f"m{next(self._serial)}", body, 0, "")
            self._stored[message.id] = _Stored(message, self._clock() + delay_s, self._wall())

    def receive(self, visibility_s: int) -> QueueMessage | None:
        with self._lock:
            for stored in self._stored.values():
                if stored.visible_at <= self._clock():
                    count_now = stored.message.dequeue_count + 1
                    return self._hide(
                        replace(stored.message, dequeue_count=count_now), visibility_s
                    )
        return None

    def renew(self, message: QueueMessage, visibility_s: int) -> QueueMessage:
        with self._lock:
            stored = self._stored.get(message.id)
            if stored is None or stored.message.receipt != message.receipt:
                raise MessageGone(f"queue in memory: {message.id} is no longer held")
            return self._hide(message, visibility_s)

    def delete(self, message: QueueMessage) -> None:
        with self._lock:
            stored = self._stored.get(message.id)
            if stored is None:
                return
            if stored.message.receipt != message.receipt:
                raise MessageGone(f"queue in memory: {message.id} is no longer held")
            del self._stored[message.id]

    def approximate_length(self) -> int:
        with self._lock:
            return len(self._stored)

    def waiting_since(self) -> datetime | None:
        with self._lock:
            now = self._clock()
            visible = (one.sent_at for one in self._stored.values() if one.visible_at <= now)
            return min(visible, default=None)

    def _hide(self, message: QueueMessage, visibility_s: int) -> QueueMessage:
        held = replace(message, receipt=f"r{next(self._serial)}")
        sent_at = self._stored[held.id].sent_at
        self._stored[held.id] = _Stored(held, self._clock() + visibility_s, sent_at)
        return held
