"""Reports of a WAL writer on their way to the function app: never in the way of WAL.

Whoever archives hands an event over and goes on. A thread of its own sends it, and keeps trying
while the queue is away; what matters stands in the log as well.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol, assert_never

from shared import adapters
from shared.azure_storage.patience import RetryBudget
from shared.errors import Denied, PgkeepError
from shared.event_log import log_event
from shared.jobs.messages import WAL_EVENT_QUEUE
from shared.jobs.queue import JobQueue
from shared.jobs.wal_events import WalConflictSeen, WalEvent, WalGapSeen, WalProgress
from shared.settings import Settings

# Conflicts and gaps that wait for the queue to come back; the archive knows about gaps without us.
_BACKLOG: Final = 256
_PATIENCE: Final = RetryBudget(total_s=5.0)
_PAUSE_S: Final = 10.0  # between two tries while the queue is away
_LAST_WORDS_S: Final = 5.0  # for what waits when the writer stops


class WalReporter(Protocol):
    def send(self, event: WalEvent) -> None:
        """Never blocks and never raises. Safe to call from any thread."""
        ...


class LogReporter:
    """Reports that go no further than the log: `wal-progress`, `wal-conflict`, `wal-gap`."""

    def send(self, event: WalEvent) -> None:
        fields = event.model_dump(mode="json", exclude={"version", "kind", "at"})
        match event:
            case WalProgress():
                log_event("wal-progress", **fields)
            case WalConflictSeen():
                log_event("wal-conflict", level=logging.ERROR, **fields)
            case WalGapSeen():
                log_event("wal-gap", level=logging.ERROR, **fields)
            case _:
                assert_never(event)


class QueueReporter:
    """Logs and sends; the thread starts with the first event. Close it to send what still waits."""

    def __init__(
        self, queue: JobQueue, prepare: Callable[[], None], *, pause_s: float = _PAUSE_S
    ) -> None:
        """`prepare` makes the queue if it is missing, and may fail as the queue does."""
        self._queue = queue
        self._prepare: Callable[[], None] | None = prepare
        self._pause_s = pause_s
        self._log = LogReporter()
        self._waiting: deque[WalEvent] = deque(maxlen=_BACKLOG)
        self._changed = threading.Condition()
        self._closing = False
        self._away = False
        self._thread: threading.Thread | None = None

    def send(self, event: WalEvent) -> None:
        self._log.send(event)
        with self._changed:
            if isinstance(event, WalProgress):
                self._forget_progress()
            self._waiting.append(event)
            self._changed.notify()
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(
                    target=self._run, name="pgkeep-wal-reports", daemon=True
                )
                self._thread.start()

    def close(self, limit_s: float = _LAST_WORDS_S) -> None:
        """Waits `limit_s` at most; a queue that is away does not delay the end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(limit_s)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            try:
                self._deliver(event)
            except PgkeepError as error:
                self._note_outage(error)
                self._wait_with(event)

    def _next(self) -> WalEvent | None:
        """The oldest event, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._closing and (self._away or not self._waiting):
                return None
            return self._waiting.popleft()

    def _deliver(self, event: WalEvent) -> None:
        if self._prepare is not None:
            with suppress(Denied):  # whoever may only send finds the queue made by others
                self._prepare()
            self._prepare = None
        self._queue.send(event.model_dump_json())
        if self._away:
            log_event("wal-reports-resumed")
        self._away = False

    def _note_outage(self, error: PgkeepError) -> None:
        if not self._away:
            log_event(
                "wal-reports-waiting", level=logging.WARNING, code=error.code, fact=error.fact
            )
        self._away = True

    def _wait_with(self, event: WalEvent) -> None:
        """Keep the event for the next try, unless a newer one has taken its place."""
        with self._changed:
            outdated = isinstance(event, WalProgress) and any(
                isinstance(other, WalProgress) for other in self._waiting
            )
            if not outdated and len(self._waiting) < _BACKLOG:
                self._waiting.appendleft(event)
            self._changed.wait_for(lambda: self._closing, self._pause_s)

    def _forget_progress(self) -> None:
        """Of two reports of progress only the newer one says anything."""
        kept = [event for event in self._waiting if not isinstance(event, WalProgress)]
        self._waiting = deque(kept, maxlen=_BACKLOG)


@contextmanager
def open_reporter(settings: Settings) -> Iterator[WalReporter]:
    """Reports to the queue, or without a section [queues] to the log alone."""
    if settings.queues is None:
        yield LogReporter()
        return
    queue = adapters.job_queue(settings, WAL_EVENT_QUEUE, retry=_PATIENCE)
    reporter = QueueReporter(queue, queue.create_if_missing)
    try:
        yield reporter
    finally:
        reporter.close()
        queue.close()
