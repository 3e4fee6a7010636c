"""The checksums of files that a backup_manifest may hold, computed as PostgreSQL does."""

import hashlib
from enum import StrEnum
from typing import Protocol

import google_crc32c


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


class FileChecksum(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def file_checksum(algorithm: ChecksumAlgorithm) -> FileChecksum:
    """A fresh accumulator whose digest() equals ManifestFile.checksum for the same bytes."""
    if algorithm is ChecksumAlgorithm.CRC32C:
        return _Crc32c()
    return hashlib.new(algorithm.lower())


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
