"""Replication commands over a walsender connection: send one, read its results and its COPY stream.

psycopg has no replication API, so this drives libpq's asynchronous calls itself. Everything that
has to wait does so in `await_input`, which gives up when the server stays silent. libpq's blocking
calls are avoided: psycopg holds the GIL over them.
"""

import re
import select
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from shared.domain.lsn import Lsn
from shared.errors import LsnInvalid, PgkeepError, PostgresGone, PostgresSilent, ProtocolViolation
from worker.postgres.connection import server_error

SILENCE_LIMIT: Final = 60.0  # seconds; a server that streams or answers a small command has more
_CHUNK_SIZE: Final = 1 << 16
_UNITS: Final = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}  # what SHOW prints for sizes

Row = tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Who the server is and how far its log is on disk."""

    system_identifier: int
    timeline: int
    flush_lsn: Lsn


def identify_system(connection: PGconn, silence_limit: float = SILENCE_LIMIT) -> SystemIdentity:
    row = _only_row(connection, "IDENTIFY_SYSTEM", silence_limit)
    if len(row) != 4:  # noqa: PLR2004 - protocol-replication: systemid, timeline, xlogpos, dbname
        raise ProtocolViolation(f"IDENTIFY_SYSTEM answered with {len(row)} columns instead of 4")
    return SystemIdentity(integer(row[0]), integer(row[1]), lsn(row[2]))


def show(connection: PGconn, parameter: str, silence_limit: float = SILENCE_LIMIT) -> str:
    """The text that SHOW prints for a run-time parameter."""
    if not re.fullmatch(r"[a-z_]+", parameter):
        raise ValueError(f"{parameter!r} is not the name of a parameter")
    return text(_only_row(connection, f"SHOW {parameter}", silence_limit)[0])


def wal_segment_size(connection: PGconn, silence_limit: float = SILENCE_LIMIT) -> int:
    """In bytes."""
    size = show(connection, "wal_segment_size", silence_limit)
    if not re.fullmatch(r"\d{1,4}(kB|MB|GB)", size):
        raise ProtocolViolation(f"the server prints its WAL segment size as {size[:40]!r}")
    return int(size[:-2]) * _UNITS[size[-2:]]


def send_command(connection: PGconn, command: str) -> None:
    try:
        connection.send_query(command.encode())
    except psycopg.OperationalError as error:
        raise gone(connection, error) from None


def next_result(connection: PGconn, silence_limit: float = SILENCE_LIMIT) -> PGresult | None:
    """The next result of the command, also one that reports an error; None after the last."""
    while connection.is_busy():
        await_input(connection, silence_limit)
    return connection.get_result()


def expect(
    connection: PGconn, status: pq.ExecStatus, silence_limit: float = SILENCE_LIMIT
) -> PGresult:
    """The next result, which must be of this status; else the server's error is raised."""
    result = next_result(connection, silence_limit)
    if result is None:
        raise ProtocolViolation(f"the server ended the command where {status.name} was due")
    if result.status != status:
        raise failure(result)
    return result


def drain(connection: PGconn, silence_limit: float = SILENCE_LIMIT) -> None:
    """Read up to the end of the command, so that the connection can take the next one."""
    while (result := next_result(connection, silence_limit)) is not None:
        if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            raise failure(result)


def copy_out(connection: PGconn, silence_limit: float = SILENCE_LIMIT) -> Iterator[memoryview]:
    """The messages of a COPY OUT or COPY BOTH, one memoryview each, up to its end."""
    read = connection.get_copy_data
    while True:
        try:
            size, message = read(1)
        except psycopg.OperationalError as error:
            raise gone(connection, error) from None
        if size > 0:
            yield message
        elif size == 0:
            await_input(connection, silence_limit)
        else:
            return


def copy_in(connection: PGconn, data: bytes, silence_limit: float = SILENCE_LIMIT) -> None:
    """Send all of `data` into a COPY IN and end it."""
    view = memoryview(data)
    connection.nonblocking = 1  # else a full socket buffer would block with the GIL held
    try:
        for start in range(0, len(view), _CHUNK_SIZE):
            connection.put_copy_data(view[start : start + _CHUNK_SIZE])
            _flush(connection, silence_limit)
        connection.put_copy_end()
        _flush(connection, silence_limit)
        connection.nonblocking = 0
    except psycopg.OperationalError as error:
        raise gone(connection, error) from None


def await_input(connection: PGconn, silence_limit: float, events: int = select.POLLIN) -> None:
    """Wait for the server to send (or take) something, and read it: the one place that waits."""
    poll = select.poll()
    poll.register(connection.socket, events)
    if not poll.poll(silence_limit * 1000):
        raise PostgresSilent(f"the server sent nothing for {silence_limit:g} s")
    try:
        connection.consume_input()
    except psycopg.OperationalError as error:
        raise gone(connection, error) from None


def _flush(connection: PGconn, silence_limit: float) -> None:
    while connection.flush():
        await_input(connection, silence_limit, select.POLLIN | select.POLLOUT)


def failure(result: PGresult) -> PgkeepError:
    """The error that a result reports; one without SQLSTATE is libpq's, about the connection."""
    message = result.get_error_message()
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    if sqlstate is not None:
        return server_error(sqlstate.decode("ascii", "replace"), message)
    if result.status == pq.ExecStatus.FATAL_ERROR:
        return PostgresGone(message.strip())
    return ProtocolViolation(f"the server answered with {pq.ExecStatus(result.status).name}")


def rows(result: PGresult) -> list[Row]:
    columns = range(result.nfields)
    return [tuple(result.get_value(row, n) for n in columns) for row in range(result.ntuples)]


def text(value: bytes | None) -> str:
    """A column that must be there; like its siblings, raises ProtocolViolation."""
    if value is None:
        raise ProtocolViolation("the server sent NULL for a value that always exists")
    return value.decode("utf-8", "replace")


def integer(value: bytes | None) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", number := text(value)):  # uint64 has 20 digits
        raise ProtocolViolation(f"the server sent {number[:40]!r} for a number")
    return int(number)


def lsn(value: bytes | None) -> Lsn:
    try:
        return Lsn.parse(text(value))
    except LsnInvalid as error:
        raise ProtocolViolation(f"the server sent a bad LSN: {error.fact}") from None


def _only_row(connection: PGconn, command: str, silence_limit: float) -> Row:
    send_command(connection, command)
    found = rows(expect(connection, pq.ExecStatus.TUPLES_OK, silence_limit))
    drain(connection, silence_limit)
    if len(found) != 1 or not found[0]:
        raise ProtocolViolation(f"{command} answered with {len(found)} rows instead of one")
    return found[0]


def gone(connection: PGconn, error: psycopg.Error) -> PostgresGone:
    """What psycopg raises when the connection ends, in libpq's words."""
    message = connection.get_error_message() if connection.status else str(error)
    return PostgresGone(f"the connection was lost: {' '.join(message.split())}")
