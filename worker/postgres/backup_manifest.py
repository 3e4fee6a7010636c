"""PostgreSQL's backup_manifest: read in one pass, strictly, with little in memory.

Format: PostgreSQL manual, "Backup Manifest Format". Stricter than PostgreSQL's own parser where
that costs nothing: no duplicate keys, no numbers in strings, no paths that leave the directory.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import LsnInvalid, ManifestInvalid
from worker.postgres.file_checksum import ChecksumAlgorithm, FileChecksum, file_checksum
from worker.postgres.manifest_files import ManifestFile, ManifestFiles
from worker.postgres.manifest_json import Json, ManifestJson

__all__ = [
    "MANIFEST_SIZE_LIMIT",
    "BackupManifest",
    "ChecksumAlgorithm",
    "FileChecksum",
    "ManifestFile",
    "WalRange",
    "file_checksum",
    "parse",
    "read",
]

MANIFEST_SIZE_LIMIT: Final = 1 << 30  # about five million files
_VERSION_KEY: Final = "PostgreSQL-Backup-Manifest-Version"
_SYSTEM_KEY: Final = "System-Identifier"
_CHECKSUM_KEY: Final = "Manifest-Checksum"
_SCALAR_KEYS: Final = {_VERSION_KEY, _SYSTEM_KEY, _CHECKSUM_KEY}
_FILE_KEYS: Final = {
    "Path",
    "Encoded-Path",
    "Size",
    "Last-Modified",
    "Checksum-Algorithm",
    "Checksum",
}
_RANGE_KEYS: Final = {"Timeline", "Start-LSN", "End-LSN"}
_SIZE_MAX: Final = 2**63 - 1  # off_t
_TIMELINE_MAX: Final = 2**32 - 1
_SYSTEM_IDENTIFIER_MAX: Final = 2**64 - 1
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_LEAVES_DIRECTORY = re.compile(rb"(^|/)\.{0,2}(/|\Z)|\0")  # empty, "." or ".." as a component
_ALGORITHMS: Final = {algorithm.value: algorithm for algorithm in ChecksumAlgorithm}


@dataclass(frozen=True, slots=True)
class WalRange:
    """Log that must be replayed: from `start` up to before `end`."""

    timeline: int
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """`system_identifier` is known from version 2 (PostgreSQL 17) on; file names are raw bytes."""

    version: int
    system_identifier: int | None
    files: ManifestFiles
    wal_ranges: tuple[WalRange, ...]


def parse(raw: bytes, *, size_limit: int = MANIFEST_SIZE_LIMIT) -> BackupManifest:
    """Raises ManifestInvalid, and nothing else, for whatever PostgreSQL did not write."""
    return read([raw], size_limit=size_limit)


def read(chunks: Iterable[bytes], *, size_limit: int = MANIFEST_SIZE_LIMIT) -> BackupManifest:
    """As `parse`, from pieces of any size, of which none is kept."""
    lines = _Lines(size_limit)
    found = _Found()
    document = ManifestJson(lines.watch(chunks))
    for key in document.members():
        if not found.scalars and key != _VERSION_KEY:
            break
        found.take(key, document)
    if not found.scalars:
        raise ManifestInvalid("the manifest does not begin with its version")
    version = _version(found.scalars)
    system_identifier = _system_identifier(found.scalars, version)
    lines.verify(found.scalars)
    if not found.files or not found.wal_ranges:
        raise ManifestInvalid("the manifest names no files or no WAL")
    return BackupManifest(version, system_identifier, found.files, tuple(found.wal_ranges))


class _Lines:
    """The last line holds the SHA-256 of all lines before it."""

    def __init__(self, size_limit: int) -> None:
        self._room, self._size_limit = size_limit, size_limit
        self._digest = hashlib.sha256()
        self._last = b""
        self._only_one = True

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._room -= len(chunk)
            if self._room < 0:
                raise ManifestInvalid(f"the manifest has more than {self._size_limit} bytes")
            self._see(chunk)
            yield chunk

    def verify(self, scalars: Json) -> None:
        if not self._last.endswith(b"\n"):
            raise ManifestInvalid("the last line does not end in a newline")
        if self._only_one:
            raise ManifestInvalid("the manifest has one line only")
        expected = _text(scalars, _CHECKSUM_KEY)
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", expected):
            raise ManifestInvalid(f"the manifest's own checksum {expected[:80]!r} is invalid")
        if self._digest.digest() != bytes.fromhex(expected):
            raise ManifestInvalid("the manifest does not match its own checksum")

    def _see(self, chunk: bytes) -> None:
        seen = self._last + chunk
        last_line = seen.rfind(b"\n", 0, -1) + 1
        self._digest.update(memoryview(seen)[:last_line])
        self._last = seen[last_line:]
        self._only_one = self._only_one and not last_line


@dataclass(slots=True)
class _Found:
    """What the document has said so far."""

    scalars: Json = field(default_factory=dict)
    files: ManifestFiles = field(default_factory=ManifestFiles)
    wal_ranges: list[WalRange] = field(default_factory=list)

    def take(self, key: str, document: ManifestJson) -> None:
        if key == "Files":
            for entry in document.elements(key):
                _add_file(entry, self.files)
        elif key == "WAL-Ranges":
            self.wal_ranges += map(_wal_range, document.elements(key))
        elif key in _SCALAR_KEYS:
            self.scalars[key] = document.value()
        else:
            raise ManifestInvalid(f"the manifest holds the unknown field {key[:40]!r}")


def _version(document: Json) -> int:
    version = _integer(document, _VERSION_KEY, _SIZE_MAX)
    if version not in (1, 2):
        raise ManifestInvalid(f"manifest version {version} is unknown")
    return version


def _system_identifier(document: Json, version: int) -> int | None:
    if version == 1 and _SYSTEM_KEY not in document:
        return None
    return _integer(document, _SYSTEM_KEY, _SYSTEM_IDENTIFIER_MAX, minimum=1)


def _add_file(entry: object, files: ManifestFiles) -> None:
    members = _members(entry, _FILE_KEYS, "a file")
    path = _path(members)
    if path in files:
        raise ManifestInvalid(f"path {path!r} occurs twice")
    files.append(path, _file(members, path))


def _path(members: Json) -> bytes:
    match members.get("Path"), members.get("Encoded-Path"):
        case str(path), None:
            raw = path.encode("utf-8", "surrogatepass")
        case None, str(encoded) if _HEX.fullmatch(encoded):
            raw = bytes.fromhex(encoded)
        case None, None:
            raise ManifestInvalid("a file has no path")
        case None, encoded:
            raise ManifestInvalid(f"Encoded-Path {str(encoded)[:40]!r} is not hexadecimal")
        case _:
            raise ManifestInvalid(
                "a file has both Path and Encoded-Path, or a path that is no text"
            )
    if _LEAVES_DIRECTORY.search(raw):
        raise ManifestInvalid(f"path {raw[:80]!r} is not inside the data directory")
    return raw


def _file(members: Json, path: bytes) -> ManifestFile:
    algorithm, checksum = _checksum(members, path)
    return ManifestFile(
        size=_integer(members, "Size", _SIZE_MAX),
        last_modified=_text(members, "Last-Modified", ""),
        checksum_algorithm=algorithm,
        checksum=checksum,
    )


def _checksum(members: Json, path: bytes) -> tuple[ChecksumAlgorithm | None, bytes]:
    name, text = _text(members, "Checksum-Algorithm", ""), _text(members, "Checksum", "")
    if not name and not text:
        return None, b""
    algorithm = _ALGORITHMS.get(name)
    if algorithm is None:
        raise ManifestInvalid(f"file {path!r} has a checksum by {name[:40]!r}, which is unknown")
    if len(text) != 2 * algorithm.digest_size or not _HEX.fullmatch(text):
        raise ManifestInvalid(f"file {path!r} has the invalid {name} checksum {text[:130]!r}")
    return algorithm, bytes.fromhex(text)


def _wal_range(entry: object) -> WalRange:
    members = _members(entry, _RANGE_KEYS, "a WAL range")
    timeline = _integer(members, "Timeline", _TIMELINE_MAX, minimum=1)
    start, end = _lsn(members, "Start-LSN"), _lsn(members, "End-LSN")
    if end < start:
        raise ManifestInvalid(f"a WAL range ends at {end}, before its start {start}")
    return WalRange(timeline, start, end)


def _members(value: object, known: set[str], what: str) -> Json:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{what} is not an object")
    if not value.keys() <= known:
        unknown = next(key for key in value if key not in known)
        raise ManifestInvalid(f"{what} holds the unknown field {unknown[:40]!r}")
    return value


def _integer(members: Json, key: str, maximum: int, minimum: int = 0) -> int:
    value = members.get(key)
    if type(value) is not int:  # bool is an int, too
        raise ManifestInvalid(f"{key} is missing or not an integer")
    if not minimum <= value <= maximum:
        raise ManifestInvalid(f"{key} is out of range")
    return value


def _text(members: Json, key: str, default: str | None = None) -> str:
    value = members.get(key, default)
    if not isinstance(value, str):
        raise ManifestInvalid(f"{key} is missing or not a text")
    return value


def _lsn(members: Json, key: str) -> Lsn:
    try:
        return Lsn.parse(_text(members, key))
    except LsnInvalid as error:
        raise ManifestInvalid(f"{key}: {error.fact}") from None
