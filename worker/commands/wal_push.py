"""Storing one file that PostgreSQL's archiver hands over, after a look at whether it is one.

Segments larger than a piece go in pieces, one after the other. Nothing is acknowledged before it is
durable, and nothing of another system, place or shape is stored under a segment's name (W05).
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from shared.domain.lsn import Lsn
from shared.domain.timeline import TimelineHistory
from shared.domain.wal_segment import (
    SEGMENT_SIZE_MAX,
    WalFileKind,
    WalFileName,
    WalPiece,
    segment_start,
)
from shared.errors import Refused
from shared.repository.documents import ClusterDocument
from worker.commands.wal_archive import PIECE_MAX, WalArchive
from worker.postgres.wal_page import check_segment, look_into

# A history file has a line for each promotion ever, a .backup file a dozen in all.
_SMALL_MAX: Final = 1 << 20


class WalFileRefused(Refused):
    """A file that cannot be what its name says."""

    code = "wal-file-refused"
    hint = "Nothing was stored. `archive_command` is 'pgkeep-wal push %p %f || exit 1'."


class WalFileChanged(Refused):
    """A file that changed while it was read."""

    code = "wal-file-changed"
    hint = "PostgreSQL tries again; if it stays, look at what else writes to pg_wal."


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """One content of one file, as far as its directory entry tells."""

    name: WalFileName
    device: int
    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """A segment that is durable: bytes [start, end), and its last commit if it has one."""

    timeline: int
    start: Lsn
    end: Lsn
    last_commit: datetime | None


def identify(name: WalFileName, descriptor: int) -> FileIdentity:
    """Raises WalFileRefused for what is no ordinary file."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise WalFileRefused(f"{name} is no ordinary file")
    return FileIdentity(name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def push_file(
    archive: WalArchive, cluster: ClusterDocument, identity: FileIdentity, descriptor: int
) -> Pushed | None:
    """Durable when it returns; something only of a segment.

    Raises WalSegmentInvalid, HistoryInvalid, WalFileRefused, WalFileChanged, and what
    WalArchive.put raises.
    """
    read = _reader(identity, descriptor)
    if identity.name.kind is WalFileKind.SEGMENT:
        return _push_segment(archive, cluster, identity, read)
    archive.put(identity.name, _read_other(cluster, identity, read))
    return None


ReadRange = Callable[[int, int], bytes]


def _push_segment(
    archive: WalArchive, cluster: ClusterDocument, identity: FileIdentity, read: ReadRange
) -> Pushed:
    name, size = identity.name, identity.size
    first = read(0, min(size, PIECE_MAX))
    _check(cluster, name, first, size)
    start = segment_start(name, size)
    if size <= PIECE_MAX:
        contents = look_into(first, start)
        archive.put(name, first, contents)
        return Pushed(name.timeline, start, start + size, contents.last_commit)
    last_commit = None
    for offset, stop in _cuts(size):
        piece = first if offset == 0 else read(offset, stop)
        contents = look_into(piece, start + offset)
        archive.put(WalPiece.of(name, offset, stop), piece, contents)
        last_commit = contents.last_commit or last_commit
    return Pushed(name.timeline, start, start + size, last_commit)


def _read_other(cluster: ClusterDocument, identity: FileIdentity, read: ReadRange) -> bytes:
    name = identity.name
    if name.kind is WalFileKind.PARTIAL:
        content = read(0, _bounded(identity, SEGMENT_SIZE_MAX))
        _check(cluster, replace(name, kind=WalFileKind.SEGMENT), content, identity.size)
        return content
    content = read(0, _bounded(identity, _SMALL_MAX))
    if name.kind is WalFileKind.HISTORY:
        TimelineHistory.parse(name.timeline, content)
    return content


def _check(cluster: ClusterDocument, name: WalFileName, content: bytes, size: int) -> None:
    system_identifier = int(cluster.system_identifier)
    check_segment(name, content, system_identifier=system_identifier, total_size=size)


def _cuts(size: int) -> Iterator[tuple[int, int]]:
    return ((offset, min(offset + PIECE_MAX, size)) for offset in range(0, size, PIECE_MAX))


def _bounded(identity: FileIdentity, limit: int) -> int:
    if identity.size > limit:
        raise WalFileRefused(f"{identity.name} has {identity.size} bytes, more than {limit}")
    return identity.size


def _reader(identity: FileIdentity, descriptor: int) -> ReadRange:
    def read(offset: int, stop: int) -> bytes:
        parts = []
        while offset < stop and (part := os.pread(descriptor, stop - offset, offset)):
            parts.append(part)
            offset += len(part)
        if offset < stop or identify(identity.name, descriptor) != identity:
            raise WalFileChanged(f"{identity.name} changed while it was read")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return read
