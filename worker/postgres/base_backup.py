"""BASE_BACKUP as a stream of events, as PostgreSQL 15 to 18 speak it.

    Start · Tablespaces · (Archive · Data… )… · ManifestData… · [ChecksumFailures] · Stop

Progress may come anywhere between. Stop is the last event and the only sign of a complete backup:
it is held back until the server has ended the command. Message formats: PostgreSQL's
protocol-replication chapter, BASE_BACKUP.
"""

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from shared.domain.lsn import Lsn
from shared.errors import InvalidInput, ProtocolViolation
from worker.postgres.backup_manifest import MANIFEST_SIZE_LIMIT, ChecksumAlgorithm
from worker.postgres.replication import (
    SILENCE_LIMIT,
    copy_in,
    copy_out,
    drain,
    expect,
    failure,
    integer,
    lsn,
    next_result,
    rows,
    send_command,
)

START_LIMIT: Final = 3600.0  # seconds; a spread checkpoint takes minutes and is silent
BASE_ARCHIVE: Final = "base.tar"
_NEW_ARCHIVE, _DATA, _MANIFEST, _PROGRESS = b"ndmp"
_DATA_CORRUPTED: Final = b"XX001"  # errcodes.txt; after the stop LSN: page checksums did not fit
_WARNINGS_KEPT: Final = 1000  # five per file at most, but there may be many files


class Checkpoint(StrEnum):
    """Whether the server checkpoints at once or spreads the writes."""

    FAST = "fast"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True)
class BaseBackupOptions:
    """`max_rate` is in kB/s; limits are seconds of silence: until the start, and while streaming.

    `incremental` needs `upload_manifest` on the same connection before.
    """

    label: str
    checkpoint: Checkpoint = Checkpoint.FAST
    wal: bool = True
    manifest_checksums: ChecksumAlgorithm = ChecksumAlgorithm.CRC32C
    verify_page_checksums: bool = True
    incremental: bool = False
    max_rate: int | None = None
    start_limit: float = START_LIMIT
    silence_limit: float = SILENCE_LIMIT
    manifest_size_limit: int = MANIFEST_SIZE_LIMIT


@dataclass(frozen=True, slots=True)
class Tablespace:
    """`oid` is None and `path` empty for the data directory; the estimate is in bytes."""

    oid: int | None
    path: bytes
    size_estimate: int | None

    @property
    def archive(self) -> str:
        return BASE_ARCHIVE if self.oid is None else f"{self.oid}.tar"


@dataclass(frozen=True, slots=True)
class Start:
    lsn: Lsn
    timeline: int


@dataclass(frozen=True, slots=True)
class Tablespaces:
    """All of them, the data directory last."""

    tablespaces: tuple[Tablespace, ...]


@dataclass(frozen=True, slots=True)
class Archive:
    """The Data that follows belongs to this tar archive."""

    name: str
    tablespace: Tablespace


@dataclass(frozen=True, slots=True)
class Data:
    chunk: bytes


@dataclass(frozen=True, slots=True)
class ManifestData:
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes of the current archive that the server has handled."""

    done: int


@dataclass(frozen=True, slots=True)
class ChecksumFailures:
    """The backup is complete, but holds pages that the server itself found broken: suspect."""

    count: int
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    lsn: Lsn
    timeline: int


CopyEvent = Archive | Data | ManifestData | Progress
Event = Start | Tablespaces | CopyEvent | ChecksumFailures | Stop


def stream_base_backup(
    connection: PGconn, options: BaseBackupOptions
) -> Generator[Event, None, None]:
    """Run one BASE_BACKUP on a walsender connection.

    After Stop the connection can be used again. On an error, and when the generator is closed
    early, the connection is closed, which ends the server's walsender.
    """
    warnings: deque[str] = deque(maxlen=_WARNINGS_KEPT)
    handler, connection.notice_handler = connection.notice_handler, _collector(warnings)
    complete = False
    try:
        send_command(connection, base_backup_command(options))
        yield Start(*_position(connection, options.start_limit))
        tablespaces = _tablespaces(connection, options.silence_limit)
        yield Tablespaces(tablespaces)
        expect(connection, pq.ExecStatus.COPY_OUT, options.silence_limit)
        messages = copy_out(connection, options.silence_limit)
        whole = yield from decode_copy(messages, tablespaces, options.manifest_size_limit)
        stop = Stop(*_position(connection, options.silence_limit))  # or why the stream broke off
        if not whole:
            raise ProtocolViolation("the stream ended before the manifest began")
        suspect = _ended_with_checksum_failures(connection, options.silence_limit)
        complete = True
        if suspect:
            yield ChecksumFailures(_failure_count(warnings), tuple(warnings))
        yield stop
    finally:
        connection.notice_handler = handler
        if not complete:
            connection.finish()


def upload_manifest(
    connection: PGconn, manifest: bytes, silence_limit: float = SILENCE_LIMIT
) -> None:
    """Hand the parent's manifest to the server, before an incremental backup (PostgreSQL 17+)."""
    send_command(connection, "UPLOAD_MANIFEST")
    expect(connection, pq.ExecStatus.COPY_IN, silence_limit)
    copy_in(connection, manifest, silence_limit)
    drain(connection, silence_limit)


def base_backup_command(options: BaseBackupOptions) -> str:
    """Raises InvalidInput for a label that would forge lines of backup_label."""
    if not options.label.isprintable():
        raise InvalidInput(f"the backup label {options.label!r} holds control characters")
    switches = {
        "LABEL": "'" + options.label.replace("'", "''") + "'",
        "PROGRESS": "true",
        "CHECKPOINT": f"'{options.checkpoint}'",
        "WAL": str(options.wal).lower(),
        "WAIT": "false",  # our own archive is asked for the WAL, not pg_stat_archiver
        "TABLESPACE_MAP": "true",
        "VERIFY_CHECKSUMS": str(options.verify_page_checksums).lower(),
        "MANIFEST": "'yes'",
        "MANIFEST_CHECKSUMS": f"'{options.manifest_checksums}'",
        "TARGET": "'client'",
    }
    if options.incremental:
        switches["INCREMENTAL"] = "true"
    if options.max_rate is not None:
        switches["MAX_RATE"] = str(options.max_rate)
    return f"BASE_BACKUP ({', '.join(f'{name} {value}' for name, value in switches.items())})"


def decode_copy(
    messages: Iterable[memoryview],
    tablespaces: Sequence[Tablespace],
    manifest_size_limit: int = MANIFEST_SIZE_LIMIT,
) -> Generator[CopyEvent, None, bool]:
    """What the messages of the COPY stream say; returns whether they got as far as the manifest.

    Raises ProtocolViolation, and nothing else.
    """
    awaited = {tablespace.archive: tablespace for tablespace in tablespaces}
    wrap: type[Data | ManifestData] | None = None
    manifest_room = manifest_size_limit
    for message in messages:
        kind = message[0] if message else None
        if kind == _DATA and wrap is not None:
            if wrap is ManifestData:
                manifest_room = _room_left(manifest_room, len(message) - 1)
            yield wrap(bytes(message[1:]))
        elif kind == _PROGRESS:
            yield _progress(message)
        elif kind == _NEW_ARCHIVE and wrap is not ManifestData:
            wrap = Data
            yield _archive(message, awaited)
        elif kind == _MANIFEST and wrap is Data and not awaited and len(message) == 1:
            wrap = ManifestData
        else:
            raise ProtocolViolation(f"message {bytes(message[:8])!r} is out of place")
    return wrap is ManifestData


def _archive(message: memoryview, awaited: dict[str, Tablespace]) -> Archive:
    match bytes(message[1:]).split(b"\0"):
        case [name, path, b""]:
            tablespace = awaited.pop(name.decode("ascii", "replace"), None)
        case _:
            raise ProtocolViolation("an archive message is not made of two strings")
    if tablespace is None or tablespace.path != path:
        raise ProtocolViolation(f"archive {name[:80]!r} of {path[:80]!r} was not announced")
    return Archive(tablespace.archive, tablespace)


def _progress(message: memoryview) -> Progress:
    done = int.from_bytes(message[1:], "big", signed=True)
    if len(message) != 9 or done < 0:  # noqa: PLR2004 - 'p' and an int64
        raise ProtocolViolation(f"progress message {bytes(message[:16])!r} is malformed")
    return Progress(done)


def _room_left(room: int, size: int) -> int:
    if size > room:
        raise ProtocolViolation("the manifest is larger than its limit")
    return room - size


def _position(connection: PGconn, silence_limit: float) -> tuple[Lsn, int]:
    match rows(expect(connection, pq.ExecStatus.TUPLES_OK, silence_limit)):
        case [(position, timeline)]:
            return lsn(position), integer(timeline)
        case found:
            raise ProtocolViolation(f"{len(found)} rows where LSN and timeline were due")


def _tablespaces(connection: PGconn, silence_limit: float) -> tuple[Tablespace, ...]:
    found = rows(expect(connection, pq.ExecStatus.TUPLES_OK, silence_limit))
    tablespaces = tuple(_tablespace(row) for row in found)
    oids = [tablespace.oid for tablespace in tablespaces]
    if oids.count(None) != 1 or len(set(oids)) != len(oids):
        raise ProtocolViolation(f"the server announced tablespaces {oids}")
    return tablespaces


def _tablespace(row: tuple[bytes | None, ...]) -> Tablespace:
    match row:
        case (oid, path, kilobytes):
            return Tablespace(
                oid=None if oid is None else integer(oid),
                path=path or b"",
                size_estimate=None if kilobytes is None else integer(kilobytes) * 1024,
            )
        case _:
            raise ProtocolViolation(f"{len(row)} columns where a tablespace has 3")


def _ended_with_checksum_failures(connection: PGconn, silence_limit: float) -> bool:
    """Read the end of the command.

    The server reports broken pages as an error, but only after the manifest and the stop LSN
    (basebackup.c, perform_base_backup), so nothing of the backup is missing.
    """
    result = next_result(connection, silence_limit)
    if result is None or result.status == pq.ExecStatus.COMMAND_OK:
        drain(connection, silence_limit)
        return False
    if result.error_field(pq.DiagnosticField.SQLSTATE) != _DATA_CORRUPTED:
        raise failure(result)
    drain(connection, silence_limit)
    return True


def _failure_count(warnings: Sequence[str]) -> int:
    """The server totals two and more failures in its last warning; one has only its own."""
    total = re.match(r"(\d{1,18}) ", warnings[-1]) if warnings else None
    return int(total[1]) if total else 1


def _collector(warnings: deque[str]) -> Callable[[PGresult], None]:
    def collect(notice: PGresult) -> None:
        if notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING":
            primary = notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
            warnings.append(primary.decode("utf-8", "replace"))

    return collect
