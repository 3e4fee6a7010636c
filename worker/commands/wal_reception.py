"""Receiving one timeline: bytes in, segments and tails out, and what is durable reported back.

Nothing is reported as flushed before `WalArchive.put` has returned for it and for all before it.
When the archive is slower than the server, the server waits: its socket is not read, but it goes
on being told how far we are, so that it does not take us for dead.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import PostgresGone, ProtocolViolation
from shared.jobs.lease import Renewal
from shared.settings import ClusterWal
from worker.commands.received_segment import DurableEnd, Stretch
from worker.commands.services import Clocks
from worker.commands.wal_measure import WalMeasure
from worker.commands.wal_position import Position
from worker.commands.wal_progress import ProgressReports, Reached
from worker.commands.wal_uploads import Uploads
from worker.postgres.doorbell import Doorbell
from worker.postgres.wal_stream import (
    TICK,
    Keepalive,
    Tick,
    TimelineEnd,
    WalData,
    WalStream,
)

# More often than the server asks for it (half of wal_sender_timeout, 60 s), by far.
_STATUS_S: Final = 1.0
# A server that shuts down asks again as soon as we answer, until all is flushed.
_ANSWER_S: Final = 0.05
_FAREWELL_S: Final = 20.0  # for the tail, when we are told to stop or the server is gone


@dataclass(frozen=True, slots=True)
class Session:
    """What a session works with, on whatever timeline."""

    settings: ClusterWal
    segment_size: int
    clocks: Clocks
    uploads: Uploads
    progress: ProgressReports
    measure: WalMeasure
    doorbell: Doorbell
    lease: Renewal
    stop: threading.Event


class Reception:
    """One timeline from a segment's start on."""

    def __init__(self, session: Session, stream: WalStream, position: Position) -> None:
        self._session = session
        self._stream = stream
        self._timeline = position.timeline
        self._stretch = Stretch(position.timeline, position.lsn, session.segment_size)
        self._durable = DurableEnd(position.lsn)
        self._server_end = position.lsn
        self._heard_at = session.clocks.now()
        self._reported = (Lsn(0), float("-inf"))
        self._answer_due = self._tail_wanted = False
        session.measure.begin()

    @property
    def position(self) -> Position:
        """The segment that is being received."""
        start = self._stretch.start
        return Position(self._timeline, Lsn(start - start % self._session.segment_size))

    def run(self) -> TimelineEnd | None:
        """Where the line goes on, with all before it durable; None when told to stop.

        Raises what the stream, the archive and the lease raise; what was not reported is at the
        server still, unless that is lost for good.
        """
        try:
            return self._receive()
        except PostgresGone:
            # The server may have died with its disk: nobody else has the tail then.
            self._store_what_came(listening=False)
            raise

    def _receive(self) -> TimelineEnd | None:
        slot = self._session.settings.slot
        for event in self._stream.events(slot, self._timeline, self._stretch.start):
            if isinstance(event, TimelineEnd):
                self._store_rest(event)
                return event
            self._hear(event)
            self._settle()
            self._report()
            self._hand_over_tail()
            self._session.progress.tend(self._reached)
            if self._session.stop.is_set():
                self._part()
                return None
        raise ProtocolViolation("the stream of WAL ended without a word")

    def _hear(self, event: WalData | Keepalive | Tick) -> None:
        if isinstance(event, Tick):
            return
        self._server_end = max(self._server_end, event.server_end)
        self._heard_at = self._session.clocks.now()
        self._session.measure.hear(event.server_end)
        if isinstance(event, WalData):
            self._take(event)
        elif event.reply_requested:
            # A server that shuts down waits until we have flushed all: the tail must not wait.
            self._answer_due = self._tail_wanted = True

    def _take(self, event: WalData) -> None:
        if event.start != self._stretch.end:
            raise ProtocolViolation(f"WAL from {event.start} came, due was {self._stretch.end}")
        rest = event.data
        while rest:
            rest = self._stretch.take(rest, self._session.clocks.monotonic())
            if self._stretch.full:
                self._wait_until(lambda: self._session.uploads.has_room)
                if self._session.stop.is_set():
                    return  # what is left of it comes again
                self._session.uploads.put(self._stretch.all())
                end, size = self._stretch.end, self._session.segment_size
                self._stretch = Stretch(self._timeline, end, size)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Or until we are told to stop. The server's socket is not read meanwhile."""
        while not condition() and not self._session.stop.is_set():
            self._session.doorbell.wait(TICK)
            self._settle()
            self._report()

    def _settle(self) -> None:
        """Take note of what has become durable, if we may still speak for the archive."""
        self._session.lease.check()
        stored = self._session.uploads.collect()
        for one in stored:
            self._durable.add(one.portion.start, one.portion.end, one.last_commit)
        self._session.measure.settle(self._durable.lsn, stored)

    def _report(self) -> None:
        now = self._session.clocks.monotonic()
        durable, reported_at = self._reported
        pause = _ANSWER_S if self._answer_due else _STATUS_S
        if self._durable.lsn > durable or now - reported_at >= pause:
            self._stream.report(self._durable.lsn)
            self._reported = (self._durable.lsn, now)
            self._answer_due = False
            self._session.measure.tell()

    def _hand_over_tail(self, *, at_once: bool = False) -> None:
        """When it has waited long enough and no other is under way: several commits share one."""
        since, settings = self._stretch.waiting_since, self._session.settings
        if since is None or self._session.uploads.tail_under_way:
            return
        waited = self._session.clocks.monotonic() - since
        urgent = at_once or settings.synchronous or self._tail_wanted
        if urgent or waited >= settings.flush_seconds:
            self._tail_wanted = False
            self._session.uploads.put_tail(self._stretch.tail())

    def _store_rest(self, end: TimelineEnd) -> None:
        """Nobody listens to reports any more."""
        if self._stretch.end < end.next_start:
            raise ProtocolViolation(
                f"the timeline goes on until {end.next_start}, WAL came up to {self._stretch.end}"
            )
        while not self._everything_is_stored() and not self._session.stop.is_set():
            self._hand_over_tail(at_once=True)
            self._session.doorbell.wait(TICK)
            self._settle()

    def _part(self) -> None:
        self._store_what_came(listening=True)
        self._stream.report(self._durable.lsn)
        self._stream.finish()

    def _store_what_came(self, *, listening: bool) -> None:
        """The tail, too, in the time that an orderly end has."""
        clock = self._session.clocks.monotonic
        deadline = clock() + _FAREWELL_S
        while not self._everything_is_stored() and clock() < deadline:
            self._hand_over_tail(at_once=True)
            self._session.doorbell.wait(TICK)
            self._settle()
            if listening:
                self._report()

    def _everything_is_stored(self) -> bool:
        return self._session.uploads.idle and self._stretch.waiting_since is None

    def _reached(self) -> Reached:
        return Reached(
            self._timeline,
            self._server_end,
            self._heard_at,
            self._durable.lsn,
            self._durable.last_commit,
        )
