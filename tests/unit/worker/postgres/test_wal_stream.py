"""START_REPLICATION against a scripted server: garbage, silence, ends of all kinds.

Real servers are in tests/integration/test_wal_receive.py; this one says what they seldom do.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import LSN_MAX, Lsn
from shared.errors import PgkeepError, PostgresGone, PostgresSilent, ProtocolViolation
from worker.postgres.connection import connect
from worker.postgres.doorbell import Doorbell
from worker.postgres.replication_slots import (
    SlotBusy,
    create_slot,
    drop_slot,
    read_slot,
    timeline_history,
)
from worker.postgres.wal_stream import (
    Keepalive,
    StreamEvent,
    Tick,
    TimelineEnd,
    Timing,
    WalData,
    WalRemoved,
    WalStream,
    decode,
)

START = Lsn.parse("0/3000000")
NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
NOW_SINCE_2000_US = 847_022_400_000_000

Script = Callable[[socket.socket], None]


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def table(*values: bytes | None) -> bytes:
    """A result of one row of text columns."""
    column = b"c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    row = b"".join(
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
        for value in values
    )
    width = struct.pack("!h", len(values))
    return message(b"T", width + column * len(values)) + message(b"D", width + row)


def trouble(sqlstate: bytes, words: bytes) -> bytes:
    return message(b"E", b"SERROR\0VERROR\0C" + sqlstate + b"\0M" + words + b"\0\0")


def inside(body: bytes) -> bytes:
    return message(b"d", body)


def wal(start: int, data: bytes) -> bytes:
    return inside(b"w" + struct.pack("!QQq", start, start + len(data), 0) + data)


def keepalive(end: int, *, reply: bool = False) -> bytes:
    return inside(b"k" + struct.pack("!Qq?", end, 0, reply))


READY = message(b"Z", b"I")
WELCOME = message(b"R", struct.pack("!i", 0)) + message(b"S", b"server_version\x0017.10\0") + READY
COPY_BOTH = message(b"W", struct.pack("!bh", 0, 0))
COPY_DONE = message(b"c")
DONE = message(b"C", b"OK\0")


@contextmanager
def answering(script: Script) -> Iterator[str]:
    """A server that runs `script` once it has read the first command."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            client.settimeout(30)
            with client, suppress(OSError):
                client.recv(4096)  # the startup packet
                client.sendall(WELCOME)
                client.recv(4096)  # the command
                script(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"host=127.0.0.1 port={listener.getsockname()[1]} user=u sslmode=disable"
        thread.join(30)


@contextmanager
def streaming(script: Script, *, silence_limit: float = 30) -> Iterator[tuple[WalStream, Doorbell]]:
    doorbell = Doorbell()
    with answering(script) as conninfo:
        connection = connect(conninfo, replication=True)
        try:
            timing = Timing(lambda: NOW, monotonic, silence_limit)
            yield WalStream(connection, doorbell, timing), doorbell
        finally:
            connection.finish()
            doorbell.close()


def events(answer: bytes) -> list[StreamEvent]:
    """Up to the end, whatever that is; ticks aside."""
    with streaming(lambda client: client.sendall(answer)) as (stream, _):
        heard = stream.events("pgkeep", 1, START)
        return [event for event in heard if not isinstance(event, Tick)]


def read_message(client: socket.socket) -> bytes:
    """One message inside the COPY, as the receiver sent it."""
    head = client.recv(5, socket.MSG_WAITALL)
    return client.recv(struct.unpack("!i", head[1:])[0] - 4, socket.MSG_WAITALL)


def until_closed(client: socket.socket) -> None:
    while client.recv(4096):
        pass


@given(st.binary(max_size=64) | st.binary(max_size=64).map(b"w".__add__))
def test_whatever_comes_is_decoded_or_a_violation(raw: bytes) -> None:
    try:
        decoded = decode(raw)
    except ProtocolViolation:
        return
    assert isinstance(decoded, WalData | Keepalive)


@given(
    st.integers(0, LSN_MAX - 100), st.integers(0, LSN_MAX), st.binary(max_size=100), st.booleans()
)
def test_well_formed_messages_are_read_as_they_are_meant(
    start: int,
    end: int,
    data: bytes,
    reply: bool,  # noqa: FBT001 - hypothesis gives it by position
) -> None:
    received = decode(b"w" + struct.pack("!QQq", start, end, -1) + data)
    assert received == WalData(Lsn(start), Lsn(end), memoryview(data))
    assert decode(b"k" + struct.pack("!Qq?", end, -1, reply)) == Keepalive(Lsn(end), reply)


@pytest.mark.parametrize(
    "garbage",
    [
        inside(b""),
        inside(b"w" + bytes(23)),
        inside(b"k" + bytes(16)),
        inside(b"k" + bytes(18)),
        inside(b"x"),
        inside(b"w" + struct.pack("!QQq", LSN_MAX, 0, 0) + b"beyond the last position"),
    ],
)
def test_garbage_in_the_stream_is_a_violation(garbage: bytes) -> None:
    with pytest.raises((ProtocolViolation, PostgresGone)):
        events(COPY_BOTH + garbage)


@given(st.binary(max_size=200))
def test_garbage_instead_of_the_stream_is_one_of_our_errors(garbage: bytes) -> None:
    with pytest.raises(PgkeepError):
        events(garbage)


def test_a_timeline_that_ends_tells_where_the_next_one_begins() -> None:
    end = COPY_DONE + table(b"2", b"0/3000010") + DONE + DONE + READY
    assert events(COPY_BOTH + wal(START, b"0123456789abcdef") + keepalive(START) + end) == [
        WalData(START, START + 16, memoryview(b"0123456789abcdef")),
        Keepalive(START, reply_requested=False),
        TimelineEnd(2, START + 16),
    ]


def test_a_timeline_that_has_ended_before_the_start_is_not_streamed() -> None:
    assert events(table(b"2", b"0/3000000") + DONE + DONE + READY) == [TimelineEnd(2, START)]


def test_the_connection_serves_for_more_after_the_timelines_end() -> None:
    def script(client: socket.socket) -> None:
        client.sendall(table(b"2", b"0/3000000") + DONE + DONE + READY)
        assert b"TIMELINE_HISTORY 2" in client.recv(4096)
        client.sendall(table(b"00000002.history", b"1\t0/3000000\tno reason") + DONE + READY)

    with streaming(script) as (stream, _):
        assert list(stream.events("pgkeep", 1, START)) == [TimelineEnd(2, START)]
        assert timeline_history(stream._connection, 2) == b"1\t0/3000000\tno reason"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (trouble(b"58P01", b"requested WAL segment 01 has already been removed"), WalRemoved),
        (trouble(b"55006", b"replication slot is active for PID 42"), SlotBusy),
        (trouble(b"57P01", b"terminating connection"), PostgresGone),
        (COPY_DONE + DONE + READY, PostgresGone),
        (COPY_DONE + table(b"2") + DONE + READY, ProtocolViolation),
        (b"", PostgresGone),
    ],
)
def test_each_end_of_the_stream_has_its_error(end: bytes, expected: type[PgkeepError]) -> None:
    with pytest.raises(expected) as caught:
        events(COPY_BOTH + wal(START, b"x") + end)
    assert type(caught.value) is expected


def test_a_report_says_what_is_durable_and_nothing_as_applied() -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        client.sendall(COPY_BOTH)
        seen.append(read_message(client))
        seen.append(read_message(client))
        until_closed(client)

    with streaming(script) as (stream, _):
        next(stream.events("pgkeep", 1, START))
        stream.report(START + 5)
        stream.report(START + 7, ask=True)
        stream._connection.flush()
    assert seen == [
        b"r" + struct.pack("!QQQqb", START + 5, START + 5, 0, NOW_SINCE_2000_US, 0),
        b"r" + struct.pack("!QQQqb", START + 7, START + 7, 0, NOW_SINCE_2000_US, 1),
    ]


def test_without_data_there_is_a_tick_soon_and_at_a_ring_at_once() -> None:
    def script(client: socket.socket) -> None:
        client.sendall(COPY_BOTH)
        until_closed(client)

    with streaming(script) as (stream, doorbell):
        heard = stream.events("pgkeep", 1, START)
        began = monotonic()
        assert list(islice(heard, 3)) == [Tick()] * 3
        quiet = monotonic() - began
        rung_at = monotonic()
        doorbell.ring()
        assert next(heard) == Tick()
        assert monotonic() - rung_at < 0.15 < quiet < 5


def test_a_silent_server_is_asked_and_then_given_up() -> None:
    asked: list[bytes] = []

    def script(client: socket.socket) -> None:
        client.sendall(COPY_BOTH)
        asked.append(read_message(client))
        client.sendall(keepalive(START))
        asked.append(read_message(client))
        until_closed(client)

    began = monotonic()
    with streaming(script, silence_limit=1) as (stream, _), pytest.raises(PostgresSilent):
        list(stream.events("pgkeep", 1, START))
    assert [message[-1:] for message in asked] == [b"\1", b"\1"], "each wants a reply"
    assert monotonic() - began > 1.5, "the first answer counted"


def test_an_orderly_end_waits_for_the_servers() -> None:
    def script(client: socket.socket) -> None:
        client.sendall(COPY_BOTH + wal(START, b"x" * 100))
        assert client.recv(5) == COPY_DONE
        client.sendall(wal(START + 100, b"more") + COPY_DONE + DONE + READY)
        until_closed(client)

    with streaming(script) as (stream, _):
        assert isinstance(next(stream.events("pgkeep", 1, START)), WalData)
        stream.finish()


def ask(answer: bytes, question: Callable[..., object], *arguments: object) -> object:
    with answering(lambda client: client.sendall(answer)) as conninfo:
        connection = connect(conninfo, replication=True)
        try:
            return question(connection, *arguments)
        finally:
            connection.finish()


def test_a_slot_is_read_with_what_it_holds_back() -> None:
    def read(*values: bytes | None) -> object:
        return ask(table(*values) + DONE + READY, read_slot, "pgkeep")

    assert read(None, None, None) is None
    slot = read(b"physical", b"0/3000000", b"1")
    assert (slot.restart_lsn, slot.restart_timeline) == (START, 1)  # type: ignore[attr-defined]
    unused = read(b"physical", None, None)
    assert unused.restart_lsn is None  # type: ignore[attr-defined]
    with pytest.raises(ProtocolViolation):
        read(b"physical", b"0/3000000")
    with pytest.raises(ProtocolViolation):
        read(b"physical", b"nonsense", b"1")


def test_a_slot_in_use_is_not_dropped_but_may_be_later() -> None:
    with pytest.raises(SlotBusy):
        ask(trouble(b"55006", b"slot is active") + READY, drop_slot, "pgkeep")


def test_a_history_that_the_server_lacks_is_none() -> None:
    answer = trouble(b"58P01", b"could not open file") + READY
    assert ask(answer, timeline_history, 2) is None
    with pytest.raises(ProtocolViolation):
        ask(table(b"00000002.history", None) + DONE + READY, timeline_history, 2)


@pytest.mark.parametrize("name", ["", "a" * 64, 'x"; DROP', "Upper", "ünlaut"])
def test_no_other_name_gets_into_a_command(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a replication slot"):
        create_slot(None, name)  # type: ignore[arg-type] # refused before it is used
