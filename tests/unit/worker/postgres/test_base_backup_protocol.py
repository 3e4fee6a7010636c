"""BASE_BACKUP against a scripted server: whatever the peer sends ends in a backup or an error.

Real servers are in tests/integration/test_base_backup_stream.py; this one says what they never do.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import pq
from psycopg.pq.abc import PGconn

from shared.domain.lsn import Lsn
from shared.errors import (
    InvalidInput,
    PgkeepError,
    PostgresCommandFailed,
    PostgresGone,
    PostgresSilent,
    PostgresVersionUnsupported,
    ProtocolViolation,
)
from worker.postgres.backup_manifest import ChecksumAlgorithm
from worker.postgres.base_backup import (
    Archive,
    BaseBackupOptions,
    Checkpoint,
    ChecksumFailures,
    Data,
    Event,
    ManifestData,
    Progress,
    Start,
    Stop,
    Tablespace,
    Tablespaces,
    base_backup_command,
    decode_copy,
    stream_base_backup,
)
from worker.postgres.connection import connect
from worker.postgres.replication import identify_system

PGDATA = Tablespace(None, b"", None)
FAST = Tablespace(16384, b"/fast", None)
BASE_ARCHIVE = b"nbase.tar\0\0"
Column = bytes | None


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def table(*rows: tuple[Column, ...]) -> bytes:
    """A result set of text columns, as wide as its first row."""
    column = b"c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    width = len(rows[0])
    described = message(b"T", struct.pack("!h", width) + column * width)
    return described + b"".join(map(_row, rows)) + message(b"C", b"SELECT\0")


def _row(columns: tuple[Column, ...]) -> bytes:
    values = (
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
        for value in columns
    )
    return message(b"D", struct.pack("!h", len(columns)) + b"".join(values))


def copy_stream(*messages: bytes) -> bytes:
    inside = b"".join(message(b"d", one) for one in messages)
    return message(b"H", struct.pack("!bh", 0, 0)) + inside + message(b"c")


def trouble(kind: bytes, severity: bytes, sqlstate: bytes, words: bytes) -> bytes:
    fields = b"S" + severity + b"\0V" + severity + b"\0C" + sqlstate + b"\0M" + words + b"\0\0"
    return message(kind, fields)


READY = message(b"Z", b"I")
WELCOME = message(b"R", struct.pack("!i", 0)) + message(b"S", b"server_version\x0017.10\0") + READY
START = table((b"0/2000028", b"1"))
SPACES = table((None, None, None))
STOP = table((b"0/2000120", b"1"))
COPY = copy_stream(BASE_ARCHIVE, b"dtar", b"m", b"d{}")
END = message(b"C", b"BASE_BACKUP\0") + READY
CORRUPTED = trouble(b"E", b"ERROR", b"XX001", b"checksum verification failure") + READY


@contextmanager
def scripted_server(
    answer: bytes, *, welcome: bytes = WELCOME, silent: bool = False
) -> Iterator[str]:
    """Answers the first command with `answer`; then hangs up, or stays silent until the end."""
    finished = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.recv(4096)  # the startup packet
                client.sendall(welcome)
                client.recv(4096)  # the command
                client.sendall(answer)
                if silent:
                    finished.wait(30)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"host=127.0.0.1 port={listener.getsockname()[1]} user=u sslmode=disable"
        finally:
            finished.set()
            thread.join(30)


@contextmanager
def answering(answer: bytes, *, silent: bool = False) -> Iterator[PGconn]:
    with scripted_server(answer, silent=silent) as conninfo:
        connection = connect(conninfo, replication=True)
        try:
            yield connection
        finally:
            connection.finish()


def stream(answer: bytes, options: BaseBackupOptions | None = None) -> list[Event]:
    with answering(answer) as connection:
        return list(stream_base_backup(connection, options or BaseBackupOptions(label="x")))


def decode(*messages: bytes, tablespaces: tuple[Tablespace, ...] = (PGDATA,)) -> list[object]:
    return list(decode_copy(map(memoryview, messages), tablespaces, manifest_size_limit=10))


def test_a_complete_backup_is_told_in_order() -> None:
    assert stream(START + SPACES + COPY + STOP + END) == [
        Start(Lsn.parse("0/2000028"), 1),
        Tablespaces((PGDATA,)),
        Archive("base.tar", PGDATA),
        Data(b"tar"),
        ManifestData(b"{}"),
        Stop(Lsn.parse("0/2000120"), 1),
    ]


def test_a_progress_message_counts_bytes() -> None:
    events = decode(BASE_ARCHIVE, b"p" + (5 << 30).to_bytes(8, "big"), b"m")
    assert events[1] == Progress(5 << 30)


def test_each_tablespace_comes_as_its_own_archive() -> None:
    messages = (b"n16384.tar\0/fast\0", b"da", BASE_ARCHIVE, b"db", b"m")
    events = decode(*messages, tablespaces=(FAST, PGDATA))
    assert events == [
        Archive("16384.tar", FAST),
        Data(b"a"),
        Archive("base.tar", PGDATA),
        Data(b"b"),
    ]


def test_broken_pages_make_the_backup_suspect_but_do_not_lose_it() -> None:
    warnings = [
        trouble(b"N", b"WARNING", b"01000", b'checksum verification failed in file "./base/5/1"'),
        trouble(b"N", b"WARNING", b"01000", b"7 total checksum verification failures"),
    ]
    *_, suspect, stop = stream(START + SPACES + COPY + b"".join(warnings) + STOP + CORRUPTED)
    assert isinstance(suspect, ChecksumFailures)
    assert suspect.count == 7
    assert len(suspect.messages) == 2
    assert stop == Stop(Lsn.parse("0/2000120"), 1)


def test_any_other_error_after_the_stop_lsn_fails_the_backup() -> None:
    error = trouble(b"E", b"ERROR", b"58030", b"could not read file") + READY
    with pytest.raises(PostgresCommandFailed, match=r"could not read file \(SQLSTATE 58030\)"):
        stream(START + SPACES + COPY + STOP + error)


def test_without_the_end_of_the_command_there_is_no_stop() -> None:
    with answering(START + SPACES + COPY + STOP) as connection:
        events = stream_base_backup(connection, BaseBackupOptions(label="x"))
        assert isinstance(next(events), Start)
        with pytest.raises(PostgresGone):
            assert not any(isinstance(event, Stop) for event in events)


def test_a_stream_that_breaks_off_tells_the_reason_of_the_server() -> None:
    broken = copy_stream(BASE_ARCHIVE, b"dx")[: -len(message(b"c"))]
    reason = trouble(b"E", b"FATAL", b"57P01", b"terminating connection")
    with pytest.raises(PostgresGone, match=r"terminating connection \(SQLSTATE 57P01\)"):
        stream(START + SPACES + broken + reason)


BAD_COPY = {
    "data before any archive": (b"dx",),
    "manifest before any archive": (b"m",),
    "empty message": (b"",),
    "unknown kind": (b"z",),
    "an archive after the manifest": (BASE_ARCHIVE, b"m", BASE_ARCHIVE),
    "a second manifest": (BASE_ARCHIVE, b"m", b"m"),
    "a manifest message with a body": (BASE_ARCHIVE, b"mx"),
    "a manifest over its limit": (BASE_ARCHIVE, b"m", b"d123456", b"d12345"),
    "the same archive twice": (BASE_ARCHIVE, BASE_ARCHIVE, b"m"),
    "an archive nobody announced": (b"n16384.tar\0/fast\0", b"m"),
    "an archive with a path of its own": (b"n../base.tar\0\0", b"m"),
    "another path than announced": (b"nbase.tar\0/etc\0", b"m"),
    "one string": (b"nbase.tar\0", b"m"),
    "three strings": (b"nbase.tar\0\0\0", b"m"),
    "strings that do not end": (b"nbase.tar\0/x", b"m"),
    "short progress": (BASE_ARCHIVE, b"p\0\0\0\0", b"m"),
    "negative progress": (BASE_ARCHIVE, b"p" + b"\xff" * 8, b"m"),
}


@pytest.mark.parametrize("name", BAD_COPY)
def test_a_copy_stream_that_no_server_sends_is_refused(name: str) -> None:
    with pytest.raises(ProtocolViolation):
        decode(*BAD_COPY[name])


def test_a_manifest_before_all_archives_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        decode(BASE_ARCHIVE, b"m", tablespaces=(FAST, PGDATA))


BAD_RESULTS = {
    "no start": END,
    "start without rows": message(b"T", struct.pack("!h", 0)) + message(b"C", b"SELECT\0"),
    "start with one column": table((b"0/2000028",)),
    "start with two rows": table((b"0/2000028", b"1"), (b"0/2000028", b"1")),
    "start at no LSN": table((b"oops", b"1")),
    "start at NULL": table((None, b"1")),
    "a timeline that is no number": table((b"0/1", b"one")),
    "tablespaces without the data directory": START + table((b"1", b"/x", b"1")),
    "the data directory twice": START + table((None, None, None), (None, None, None)),
    "a tablespace twice": START
    + table((b"1", b"/x", None), (b"1", b"/y", None), (None, None, None)),
    "a tablespace of four columns": START + table((None, None, None, None)),
    "a size that is no number": START + table((None, None, b"-1")),
    "a copy without a manifest": START + SPACES + copy_stream(BASE_ARCHIVE, b"dx") + STOP + END,
    "an empty copy": START + SPACES + copy_stream() + STOP + END,
    "no copy": START + SPACES + STOP,
    "no stop": START + SPACES + COPY + END,
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_results_that_no_server_sends_are_refused(name: str) -> None:
    with pytest.raises(ProtocolViolation):
        stream(BAD_RESULTS[name] + READY)


_byte_runs = st.binary(max_size=24)
_hints = st.sampled_from([BASE_ARCHIVE, b"m", b"dx", b"p" + bytes(8), b"n16384.tar\0/fast\0"])


@given(st.lists(_byte_runs | _hints, max_size=12))
def test_any_copy_messages_are_decoded_or_refused(messages: list[bytes]) -> None:
    try:
        events = decode(*messages)
    except ProtocolViolation:
        return
    assert b"".join(e.chunk for e in events if isinstance(e, Data | ManifestData)) == b"".join(
        one[1:] for one in messages if one[:1] == b"d"
    )


_columns = st.none() | st.sampled_from([b"0/1", b"1", b""]) | _byte_runs
_tables = st.lists(
    st.tuples(_columns, _columns) | st.tuples(_columns, _columns, _columns), min_size=1
)
_parts = (
    _tables.filter(lambda rows: len(set(map(len, rows))) == 1).map(lambda rows: table(*rows))
    | st.lists(_byte_runs | _hints, max_size=4).map(lambda messages: copy_stream(*messages))
    | st.sampled_from([START, SPACES, COPY, STOP, END, CORRUPTED, READY])
    | st.binary(max_size=40)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_parts, max_size=6).map(b"".join))
def test_any_answer_ends_in_a_backup_or_in_an_error_of_ours(answer: bytes) -> None:
    with answering(answer) as connection:
        try:
            events = list(stream_base_backup(connection, BaseBackupOptions("x", silence_limit=5)))
        except PgkeepError:
            assert connection.status == pq.ConnStatus.BAD
        else:
            assert isinstance(events[-1], Stop)


@pytest.mark.parametrize("answer", [b"", START, START + SPACES, START + SPACES + COPY])
def test_a_server_that_falls_silent_is_given_up(answer: bytes) -> None:
    options = BaseBackupOptions(label="x", start_limit=0.05, silence_limit=0.05)
    with answering(answer, silent=True) as connection:
        with pytest.raises(PostgresSilent, match=r"nothing for 0\.05 s"):
            list(stream_base_backup(connection, options))
        assert connection.status == pq.ConnStatus.BAD


def test_a_stream_closed_early_closes_the_connection() -> None:
    with answering(START + SPACES + COPY, silent=True) as connection:
        events = stream_base_backup(connection, BaseBackupOptions(label="x"))
        assert isinstance(next(events), Start)
        events.close()
        assert connection.status == pq.ConnStatus.BAD


def test_a_consumer_that_stops_at_stop_keeps_the_connection() -> None:
    with answering(START + SPACES + COPY + STOP + END, silent=True) as connection:
        for event in stream_base_backup(connection, BaseBackupOptions(label="x")):
            if isinstance(event, Stop):
                break
        assert connection.status == pq.ConnStatus.OK


def test_identify_system_refuses_an_answer_of_another_shape() -> None:
    with answering(table((b"1", b"1")) + READY) as connection, pytest.raises(ProtocolViolation):
        identify_system(connection)


def test_a_version_never_tried_is_refused() -> None:
    welcome = WELCOME.replace(b"17.10", b"14.20")
    with (
        scripted_server(b"", welcome=welcome) as conninfo,
        pytest.raises(PostgresVersionUnsupported, match="PostgreSQL 14, supported are 15 to 18"),
    ):
        connect(conninfo, replication=True)


def test_the_command_says_everything_explicitly() -> None:
    assert base_backup_command(BaseBackupOptions(label="it's")) == (
        "BASE_BACKUP (LABEL 'it''s', PROGRESS true, CHECKPOINT 'fast', WAL true, WAIT false, "
        "TABLESPACE_MAP true, VERIFY_CHECKSUMS true, MANIFEST 'yes', "
        "MANIFEST_CHECKSUMS 'CRC32C', TARGET 'client')"
    )


def test_the_command_follows_the_options() -> None:
    options = BaseBackupOptions(
        label="x",
        checkpoint=Checkpoint.SPREAD,
        wal=False,
        manifest_checksums=ChecksumAlgorithm.SHA256,
        verify_page_checksums=False,
        incremental=True,
        max_rate=32768,
    )
    assert base_backup_command(options) == (
        "BASE_BACKUP (LABEL 'x', PROGRESS true, CHECKPOINT 'spread', WAL false, WAIT false, "
        "TABLESPACE_MAP true, VERIFY_CHECKSUMS false, MANIFEST 'yes', "
        "MANIFEST_CHECKSUMS 'SHA256', TARGET 'client', INCREMENTAL true, MAX_RATE 32768)"
    )


@pytest.mark.parametrize("label", ["a\nSTART TIMELINE: 9", "a\0", "a\x7f"])
def test_a_label_that_would_forge_lines_of_backup_label_is_refused(label: str) -> None:
    with pytest.raises(InvalidInput, match="control characters"):
        base_backup_command(BaseBackupOptions(label=label))
