"""Reports of a WAL writer: never in its way, whatever becomes of the queue."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.lsn import Lsn
from shared.errors import StorageDenied, StorageUnavailable
from shared.jobs.wal_events import (
    WalConflictSeen,
    WalEvent,
    WalGapSeen,
    WalProgress,
    parse_wal_event,
)
from tests.harness.deadline import wait_until
from tests.harness.memory_queue import MemoryQueue
from worker.commands.wal_reporter import LogReporter, QueueReporter

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LIMIT_S = 10


class Queue(MemoryQueue):
    """Away while `answers` is cleared: a sender waits as for a dead network, then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()
        self.attempts = 0
        self.held = threading.Event()
        self.held.set()

    def send(self, body: str, *, delay_s: int = 0) -> None:
        self.attempts += 1
        self.held.wait(LIMIT_S)
        if not self.answers.is_set():
            raise StorageUnavailable("nobody answers")
        super().send(body, delay_s=delay_s)

    def arrived(self) -> list[WalEvent]:
        """In the order in which they were sent; takes them away."""
        found = []
        while message := self.receive(60):
            found.append(parse_wal_event(message.body))
            self.delete(message)
        return found


def progress(minute: int = 0) -> WalProgress:
    at = NOON + timedelta(minutes=minute)
    return WalProgress(cluster="main", at=at, writer="receive", host="db1/7", timeline=1)


def conflict(number: int) -> WalConflictSeen:
    return WalConflictSeen(
        cluster="main",
        at=NOON,
        writer="agent",
        host="db1/7",
        name=f"{number:024X}",
        stored_sha256=None,
        offered_sha256="0" * 64,
    )


def gap() -> WalGapSeen:
    span = {"from_lsn": Lsn(16), "to_lsn": Lsn(32)}
    return WalGapSeen(cluster="main", at=NOON, writer="receive", host="db1/7", timeline=1, **span)


@contextmanager
def reporting(queue: Queue, prepare: Callable[[], None] = lambda: None) -> Iterator[QueueReporter]:
    reporter = QueueReporter(queue, prepare, pause_s=0.01)
    try:
        yield reporter
    finally:
        queue.held.set()
        reporter.close()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_events_arrive_in_order_also_those_that_still_wait_at_the_end() -> None:
    queue = Queue()
    sent: list[WalEvent] = [conflict(1), gap(), progress()]
    with reporting(queue) as reporter:
        for event in sent:
            reporter.send(event)
    assert queue.arrived() == sent


def test_the_queue_is_made_once_before_the_first_event() -> None:
    made: list[int] = []
    queue = Queue()
    with reporting(queue, lambda: made.append(queue.attempts)) as reporter:
        assert made == []
        reporter.send(conflict(1))
        reporter.send(conflict(2))
    assert made == [0]
    assert len(queue.arrived()) == 2


def test_who_may_send_but_not_make_queues_still_reports() -> None:
    def denied() -> None:
        raise StorageDenied("queues/write is missing")

    queue = Queue()
    with reporting(queue, denied) as reporter:
        reporter.send(gap())
    assert queue.arrived() == [gap()]


def test_w12_an_outage_delays_nobody_loses_no_conflict_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="pgkeep")
    queue = Queue()
    queue.answers.clear()
    with reporting(queue) as reporter:
        reporter.send(conflict(1))
        wait_until(lambda: queue.attempts > 3, LIMIT_S, "several tries")
        reporter.send(progress(1))
        reporter.send(gap())
        reporter.send(progress(2))
        queue.answers.set()
        wait_until(lambda: queue.approximate_length() == 3, LIMIT_S, "all arrive")
    assert queue.arrived() == [conflict(1), gap(), progress(2)]
    assert events(caplog).count("wal-reports-waiting") == 1
    assert events(caplog).count("wal-reports-resumed") == 1


def test_a_queue_that_does_not_answer_at_all_holds_up_neither_sender_nor_end() -> None:
    queue = Queue()
    queue.held.clear()
    with reporting(queue) as reporter:
        for minute in range(2_000):
            reporter.send(progress(minute))
            reporter.send(conflict(minute))
        wait_until(lambda: queue.attempts, LIMIT_S, "the first try")
        reporter.close(limit_s=0.05)
        queue.held.set()
    arrived = queue.arrived()
    assert 256 <= len(arrived) <= 257  # what was under way, and the newest of the others
    assert arrived[-1] == conflict(1_999)


def test_the_end_gives_an_outage_up() -> None:
    queue = Queue()
    queue.answers.clear()
    with reporting(queue) as reporter:
        reporter.send(gap())
        wait_until(lambda: queue.attempts > 1, LIMIT_S, "several tries")
        reporter.close()
        assert reporter._thread is not None
        assert not reporter._thread.is_alive()
    assert queue.arrived() == []


def test_the_log_has_every_event_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pgkeep")
    reporter = LogReporter()
    for event in (progress(), conflict(7), gap()):
        reporter.send(event)
    assert events(caplog) == ["wal-progress", "wal-conflict", "wal-gap"]
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.INFO, logging.ERROR, logging.ERROR]
    facts = caplog.records[-1].__dict__["fields"]
    assert (facts["cluster"], facts["from_lsn"], facts["to_lsn"]) == ("main", "0/10", "0/20")
