"""Entries of a manifest: found by path, corrected in place."""

import pytest

from shared.errors import PgkeepError
from worker.postgres.file_checksum import ChecksumAlgorithm
from worker.postgres.manifest_files import ManifestFile, ManifestFiles

CRC = ChecksumAlgorithm.CRC32C
FIRST = ManifestFile(1, "one", CRC, b"1111")
SECOND = ManifestFile(2, "two", CRC, b"2222")


def test_a_replaced_entry_keeps_its_place_and_touches_no_other() -> None:
    files = ManifestFiles([(b"a", FIRST), (b"b", SECOND), (b"c", FIRST)])
    files.replace(b"b", ManifestFile(9, "two", CRC, b"9999"))
    assert list(files.items()) == [
        (b"a", FIRST),
        (b"b", ManifestFile(9, "two", CRC, b"9999")),
        (b"c", FIRST),
    ]


def test_an_entry_is_not_replaced_by_one_of_another_algorithm() -> None:
    files = ManifestFiles([(b"a", FIRST), (b"b", SECOND)])
    with pytest.raises(PgkeepError, match="checksum of 4 bytes"):
        files.replace(b"a", ManifestFile(1, "one", ChecksumAlgorithm.SHA256, bytes(32)))
    assert dict(files) == {b"a": FIRST, b"b": SECOND}


def test_an_unknown_file_has_no_entry_to_replace() -> None:
    with pytest.raises(KeyError):
        ManifestFiles().replace(b"a", FIRST)
