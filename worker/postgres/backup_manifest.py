"""PostgreSQL's backup_manifest: reading it, and making file checksums comparable with it.

Format: PostgreSQL manual, "Backup Manifest Format". Stricter than PostgreSQL's own parser where
that costs nothing: no duplicate keys, no numbers in strings, no paths that leave the directory.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, Protocol

import google_crc32c

from shared.domain.lsn import Lsn
from shared.errors import LsnInvalid, ManifestInvalid

MANIFEST_SIZE_LIMIT: Final = 1 << 30  # about five million files
_VERSION_KEY: Final = "PostgreSQL-Backup-Manifest-Version"
_TOP_KEYS: Final = {_VERSION_KEY, "System-Identifier", "Files", "WAL-Ranges", "Manifest-Checksum"}
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
_LEAVES_DIRECTORY = re.compile(rb"(^|/)\.{0,2}(/|$)|\0")  # empty, "." or ".." as a component

_Json = dict[str, object]


class ChecksumAlgorithm(StrEnum):
    """As BASE_BACKUP takes it and the manifest writes it."""

    CRC32C = "CRC32C"
    SHA224 = "SHA224"
    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"

    @property
    def digest_size(self) -> int:
        return 4 if self is ChecksumAlgorithm.CRC32C else int(self[3:]) // 8


_ALGORITHMS: Final = {algorithm.value: algorithm for algorithm in ChecksumAlgorithm}


class FileChecksum(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32c:
    """The manifest holds the server's uint32 as it lies in memory, little-endian everywhere today.

    google_crc32c hands digests out big-endian.
    """

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = google_crc32c.extend(self._value, data)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """`checksum` is empty when the backup was taken without."""

    size: int
    last_modified: str
    checksum_algorithm: ChecksumAlgorithm | None
    checksum: bytes


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
    files: Mapping[bytes, ManifestFile]
    wal_ranges: tuple[WalRange, ...]


def file_checksum(algorithm: ChecksumAlgorithm) -> FileChecksum:
    """A fresh accumulator whose digest() equals ManifestFile.checksum for the same bytes."""
    if algorithm is ChecksumAlgorithm.CRC32C:
        return _Crc32c()
    return hashlib.new(algorithm.lower())


def parse(raw: bytes, *, size_limit: int = MANIFEST_SIZE_LIMIT) -> BackupManifest:
    """Raises ManifestInvalid, and nothing else, for whatever PostgreSQL did not write."""
    if len(raw) > size_limit:
        raise ManifestInvalid(f"the manifest has {len(raw)} bytes, more than {size_limit}")
    document = _top_level(_load(raw))
    version = _version(document)
    system_identifier = _system_identifier(document, version)
    files = _files(_array(document, "Files"))
    wal_ranges = tuple(map(_wal_range, _array(document, "WAL-Ranges")))
    _verify_checksum(raw, document)
    if not files or not wal_ranges:
        raise ManifestInvalid("the manifest names no files or no WAL")
    return BackupManifest(version, system_identifier, files, wal_ranges)


def _load(raw: bytes) -> object:
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_no_such_number,
            parse_constant=_no_such_number,
        )
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"not JSON: {error}") from None


def _object(pairs: list[tuple[str, object]]) -> _Json:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ManifestInvalid("an object holds the same key twice")
    return members


def _no_such_number(literal: str) -> NoReturn:
    raise ManifestInvalid(f"{literal[:40]!r} is not an integer")


def _top_level(document: object) -> _Json:
    if isinstance(document, dict) and next(iter(document), None) != _VERSION_KEY:
        raise ManifestInvalid("the manifest does not begin with its version")
    return _members(document, _TOP_KEYS, "the manifest")


def _version(document: _Json) -> int:
    version = _integer(document, _VERSION_KEY, _SIZE_MAX)
    if version not in (1, 2):
        raise ManifestInvalid(f"manifest version {version} is unknown")
    return version


def _system_identifier(document: _Json, version: int) -> int | None:
    if version == 1 and "System-Identifier" not in document:
        return None
    return _integer(document, "System-Identifier", _SYSTEM_IDENTIFIER_MAX, minimum=1)


def _files(entries: list[object]) -> dict[bytes, ManifestFile]:
    files: dict[bytes, ManifestFile] = {}
    for entry in entries:
        members = _members(entry, _FILE_KEYS, "a file")
        path = _path(members)
        if path in files:
            raise ManifestInvalid(f"path {path!r} occurs twice")
        files[path] = _file(members, path)
    return files


def _path(members: _Json) -> bytes:
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


def _file(members: _Json, path: bytes) -> ManifestFile:
    algorithm, checksum = _checksum(members, path)
    return ManifestFile(
        size=_integer(members, "Size", _SIZE_MAX),
        last_modified=_text(members, "Last-Modified", ""),
        checksum_algorithm=algorithm,
        checksum=checksum,
    )


def _checksum(members: _Json, path: bytes) -> tuple[ChecksumAlgorithm | None, bytes]:
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


def _verify_checksum(raw: bytes, document: _Json) -> None:
    """The last line holds the SHA-256 of all lines before it."""
    last_line = raw.rfind(b"\n", 0, len(raw) - 1) + 1
    if not raw.endswith(b"\n"):
        raise ManifestInvalid("the last line does not end in a newline")
    if not last_line:
        raise ManifestInvalid("the manifest has one line only")
    expected = _text(document, "Manifest-Checksum")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", expected):
        raise ManifestInvalid(f"the manifest's own checksum {expected[:80]!r} is invalid")
    actual = hashlib.sha256(memoryview(raw)[:last_line]).digest()
    if actual != bytes.fromhex(expected):
        raise ManifestInvalid("the manifest does not match its own checksum")


def _array(document: _Json, key: str) -> list[object]:
    value = document.get(key, [])
    if not isinstance(value, list):
        raise ManifestInvalid(f"{key} is not an array")
    return value


def _members(value: object, known: set[str], what: str) -> _Json:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{what} is not an object")
    if not value.keys() <= known:
        unknown = next(key for key in value if key not in known)
        raise ManifestInvalid(f"{what} holds the unknown field {unknown[:40]!r}")
    return value


def _integer(members: _Json, key: str, maximum: int, minimum: int = 0) -> int:
    value = members.get(key)
    if type(value) is not int:  # bool is an int, too
        raise ManifestInvalid(f"{key} is missing or not an integer")
    if not minimum <= value <= maximum:
        raise ManifestInvalid(f"{key} is out of range")
    return value


def _text(members: _Json, key: str, default: str | None = None) -> str:
    value = members.get(key, default)
    if not isinstance(value, str):
        raise ManifestInvalid(f"{key} is missing or not a text")
    return value


def _lsn(members: _Json, key: str) -> Lsn:
    try:
        return Lsn.parse(_text(members, key))
    except LsnInvalid as error:
        raise ManifestInvalid(f"{key}: {error.fact}") from None
