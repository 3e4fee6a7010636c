"""Writing a backup_manifest, line by line as PostgreSQL does (backup_manifest.c).

pg_verifybackup is the judge of what this writes, and `worker.postgres.backup_manifest` reads it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from worker.postgres.backup_manifest import BackupManifest, WalRange
from worker.postgres.manifest_files import ManifestFile

# Lines are handed on together: one by one they would cost more in calls than in bytes.
_CHUNK: Final = 1 << 16

ManifestEntry = tuple[bytes, ManifestFile]


def manifest_chunks(source: BackupManifest, entries: Iterable[ManifestEntry]) -> Iterator[bytes]:
    """The text, in pieces, of a manifest with other files: all else is that of `source`."""
    digest = hashlib.sha256()
    for chunk in _gathered(_lines(source, entries)):
        digest.update(chunk)
        yield chunk
    yield f'"Manifest-Checksum": "{digest.hexdigest()}"}}\n'.encode()


def _lines(source: BackupManifest, entries: Iterable[ManifestEntry]) -> Iterator[bytes]:
    yield b'{ "PostgreSQL-Backup-Manifest-Version": %d,\n' % source.version
    if source.system_identifier is not None:
        yield b'"System-Identifier": %d,\n' % source.system_identifier
    yield b'"Files": ['
    separator = b"\n"
    for path, file in entries:
        yield separator + _file_line(path, file)
        separator = b",\n"
    yield b"\n],\n" + _wal_ranges(source.wal_ranges)


def _file_line(path: bytes, file: ManifestFile) -> bytes:
    members = [_path_member(path), f'"Size": {file.size}']
    members.append(f'"Last-Modified": {json.dumps(file.last_modified)}')
    if file.checksum_algorithm is not None:
        members.append(f'"Checksum-Algorithm": "{file.checksum_algorithm}"')
        members.append(f'"Checksum": "{file.checksum.hex()}"')
    return f"{{ {', '.join(members)} }}".encode()


def _path_member(path: bytes) -> str:
    try:
        return f'"Path": {json.dumps(path.decode("utf-8"), ensure_ascii=False)}'
    except UnicodeDecodeError:
        return f'"Encoded-Path": "{path.hex()}"'


def _wal_ranges(ranges: Sequence[WalRange]) -> bytes:
    lines = (
        f'{{ "Timeline": {item.timeline}, "Start-LSN": "{item.start}", "End-LSN": "{item.end}" }}'
        for item in ranges
    )
    return ('"WAL-Ranges": [\n' + ",\n".join(lines) + "\n],\n").encode()


def _gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    gathered = bytearray()
    for line in lines:
        gathered += line
        if len(gathered) >= _CHUNK:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)
