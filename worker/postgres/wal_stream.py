"""START_REPLICATION over a walsender connection: WAL as it is flushed, and what we report of it.

    WalData · Keepalive · Tick, in any order, then TimelineEnd if the timeline was left behind

Message formats: PostgreSQL's chapter protocol-replication. libpq is driven by its asynchronous
calls only, so nothing here blocks with the GIL held.
"""

import select
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from shared.domain.lsn import Lsn
from shared.errors import (
    LsnInvalid,
    NotFound,
    PgkeepError,
    PostgresGone,
    PostgresSilent,
    ProtocolViolation,
)
from worker.postgres.doorbell import Doorbell
from worker.postgres.replication import (
    SILENCE_LIMIT,
    failure,
    gone,
    integer,
    lsn,
    next_result,
    rows,
    send_command,
)
from worker.postgres.replication_slots import (
    OBJECT_IN_USE,
    UNDEFINED_FILE,
    SlotBusy,
    end_command,
    quoted,
)

TICK: Final = 0.2  # seconds; the longest that a caller waits before it may look at its own affairs
_FAREWELL: Final = 5.0  # seconds for the server to end the stream when we have asked it to
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # of TimestampTz
_DATA: Final = struct.Struct("!cQQq")  # XLogData: start, end of the server's WAL, its clock
_KEEPALIVE: Final = struct.Struct("!cQq?")  # end of what it sent, its clock, whether to reply
_STATUS: Final = struct.Struct("!cQQQq?")  # written, flushed, applied, our clock, whether to reply


class WalRemoved(NotFound):
    """The server no longer has the WAL that was asked for."""

    code = "wal-removed"
    hint = "The gap stays; take a base backup now, and raise max_slot_wal_keep_size."


@dataclass(frozen=True, slots=True)
class WalData:
    """WAL from `start` on; `server_end` is how far the server had flushed when it sent it."""

    start: Lsn
    server_end: Lsn
    data: memoryview


@dataclass(frozen=True, slots=True)
class Keepalive:
    """`server_end` is how far the server has sent. One that wants a reply waits for our report."""

    server_end: Lsn
    reply_requested: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing came for TICK seconds, or somebody rang."""


@dataclass(frozen=True, slots=True)
class TimelineEnd:
    """The timeline was left at `next_start`, where `next_timeline` begins."""

    next_timeline: int
    next_start: Lsn


Message = WalData | Keepalive
StreamEvent = Message | Tick | TimelineEnd


@dataclass(frozen=True, slots=True)
class Timing:
    """`now` is UTC and goes into reports; `monotonic` measures; silence is in seconds."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    silence_limit: float = SILENCE_LIMIT


class WalStream:
    """One timeline's WAL from `start` on. `events` may be left at any time, then `finish` ends it.

    The connection serves for further commands after TimelineEnd only.
    """

    def __init__(self, connection: PGconn, doorbell: Doorbell, timing: Timing) -> None:
        self._connection = connection
        self._doorbell = doorbell
        self._timing = timing
        self._reported = Lsn(0)
        self._heard_at = timing.monotonic()
        self._asked_at: float | None = None

    def events(self, slot: str, timeline: int, start: Lsn) -> Iterator[StreamEvent]:
        """Raises WalRemoved, SlotBusy, PostgresGone when the server ends it, PostgresSilent when
        nothing came for long and nothing comes when asked, ProtocolViolation; else as commands do.
        """
        command = f"START_REPLICATION SLOT {quoted(slot)} PHYSICAL {start} TIMELINE {timeline}"
        send_command(self._connection, command)
        result = next_result(self._connection, self._timing.silence_limit)
        if result is not None and result.status == pq.ExecStatus.COPY_BOTH:
            self._connection.nonblocking = 1
            self._heard_at = self._timing.monotonic()
            yield from self._copy()
            result = self._end_of_copy()
        end = _timeline_end(result)
        end_command(self._connection)
        yield end

    def report(self, durable: Lsn, *, ask: bool = False) -> None:
        """Tell the server that WAL up to `durable` is safe; with `ask` it answers at once.

        As written counts what is durable, too: a commit that waits for remote_write must not
        return for bytes that are in this process's memory alone.
        """
        self._reported = durable
        elapsed = (self._timing.now() - _EPOCH) // timedelta(microseconds=1)
        status = _STATUS.pack(b"r", durable, durable, 0, elapsed, ask)
        try:
            self._connection.put_copy_data(status)
            self._connection.flush()
        except psycopg.OperationalError as error:
            raise gone(self._connection, error) from None

    def finish(self) -> None:
        """End the stream in order, so that the server takes our last report into account."""
        deadline = self._timing.monotonic() + _FAREWELL
        try:
            self._connection.put_copy_end()
            while (size := self._connection.get_copy_data(1)[0]) != -1:
                if self._timing.monotonic() >= deadline:
                    raise PostgresSilent(f"the server did not end the stream in {_FAREWELL:g} s")
                if size == 0:
                    self._await(TICK)
        except psycopg.OperationalError as error:
            raise gone(self._connection, error) from None

    def _copy(self) -> Iterator[Message | Tick]:
        while True:
            try:
                size, message = self._connection.get_copy_data(1)
            except psycopg.OperationalError as error:
                raise self._end_of_stream(error) from None
            if size < 0:
                return
            if size > 0:
                yield decode(message)
            elif not self._await(TICK):
                self._watch_silence()
                yield Tick()

    def _await(self, seconds: float) -> bool:
        """Read what the server has sent; False when it was nothing, for so long or until a ring."""
        poll = select.poll()
        poll.register(self._connection.socket, select.POLLIN)
        poll.register(self._doorbell, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
        try:
            self._connection.flush()  # what a full socket buffer refused before
            if self._connection.socket in ready:
                self._connection.consume_input()
        except psycopg.OperationalError as error:
            raise gone(self._connection, error) from None
        if self._connection.socket in ready:
            self._heard_at, self._asked_at = self._timing.monotonic(), None
        if self._doorbell.fileno() in ready:
            self._doorbell.silence()
            return False
        return bool(ready)

    def _watch_silence(self) -> None:
        """A server that hears from us regularly has no reason to speak: it must be asked."""
        now, patience = self._timing.monotonic(), self._timing.silence_limit / 2
        if self._asked_at is not None:
            if now - self._asked_at >= patience:
                raise PostgresSilent(f"the server did not answer for {patience:g} s")
        elif now - self._heard_at >= patience:
            self._asked_at = now
            self.report(self._reported, ask=True)

    def _end_of_copy(self) -> PGresult | None:
        """The result after the COPY: the server sees our end of it only now."""
        result = next_result(self._connection, self._timing.silence_limit)
        if result is not None and result.status == pq.ExecStatus.COPY_IN:
            self._connection.put_copy_end()
            result = next_result(self._connection, self._timing.silence_limit)
        self._connection.nonblocking = 0
        return result

    def _end_of_stream(self, error: psycopg.OperationalError) -> PgkeepError:
        """What libpq calls a failed COPY: the server's own words, if there are any."""
        with suppress(psycopg.OperationalError):
            result = self._connection.get_result()
            if result is not None and result.error_field(pq.DiagnosticField.SQLSTATE):
                return _failure(result)
        return gone(self._connection, error)


def decode(message: bytes | memoryview) -> Message:
    """One message inside the COPY. Raises ProtocolViolation, and nothing else."""
    try:
        if message[:1] == b"w":
            _, start, end, _ = _DATA.unpack_from(message)
            data = memoryview(message)[_DATA.size :]
            Lsn(start + len(data))
            return WalData(Lsn(start), Lsn(end), data)
        if message[:1] == b"k" and len(message) == _KEEPALIVE.size:
            _, end, _, reply = _KEEPALIVE.unpack(message)
            return Keepalive(Lsn(end), reply)
    except (struct.error, LsnInvalid):
        pass
    raise ProtocolViolation(f"message {bytes(message[:8])!r} is out of place in a stream of WAL")


def _timeline_end(result: PGresult | None) -> TimelineEnd:
    if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
        match rows(result):
            case [(timeline, start)]:
                return TimelineEnd(integer(timeline), lsn(start))
            case found:
                raise ProtocolViolation(f"{len(found)} rows where the next timeline was due")
    if result is not None and result.status == pq.ExecStatus.COMMAND_OK:
        raise PostgresGone("the server ended the stream: it shuts down")
    raise _out_of_place(result)


def _out_of_place(result: PGresult | None) -> PgkeepError:
    if result is None:
        return ProtocolViolation("the server ended the command without an answer")
    return _failure(result)


def _failure(result: PGresult) -> PgkeepError:
    known = {UNDEFINED_FILE: WalRemoved, OBJECT_IN_USE: SlotBusy}
    error = known.get(result.error_field(pq.DiagnosticField.SQLSTATE) or b"")
    if error is None:
        return failure(result)
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return error(message.decode("utf-8", "replace"))
