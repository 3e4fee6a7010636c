"""Nothing damaged gets into a synthetic full, and its manifest describes what it holds."""

from collections.abc import Mapping

import pytest

from shared.domain.file_versions import PlannedFile
from shared.domain.lsn import Lsn
from worker.commands.composed_stream import ComposedManifest
from worker.commands.file_proof import FileDamaged
from worker.postgres.backup_manifest import BackupManifest, WalRange, parse
from worker.postgres.file_checksum import ChecksumAlgorithm, file_checksum
from worker.postgres.manifest_files import ManifestFile, ManifestFiles

WHOLE, PART, LABEL = b"base/5/1", b"base/5/INCREMENTAL.2", b"backup_label"
COMPOSED = PlannedFile(b"base/5/2", 3, 0o600, composed=True)


def entry(content: bytes, algorithm: ChecksumAlgorithm | None) -> ManifestFile:
    if algorithm is None:
        return ManifestFile(len(content), "2026-11-22 03:00:00 GMT", None, b"")
    checksum = file_checksum(algorithm)
    checksum.update(content)
    return ManifestFile(len(content), "2026-11-22 03:00:00 GMT", algorithm, checksum.digest())


def newest(
    files: Mapping[bytes, bytes], algorithm: ChecksumAlgorithm | None = ChecksumAlgorithm.CRC32C
) -> ComposedManifest:
    """Of a backup with these files."""
    found = ManifestFiles()
    for path, content in files.items():
        found.append(path, entry(content, algorithm))
    ranges = (WalRange(1, Lsn.parse("0/2000028"), Lsn.parse("0/2000120")),)
    return ComposedManifest(BackupManifest(2, 7469021459732458133, found, ranges))


def planned(path: bytes, content: bytes) -> PlannedFile:
    return PlannedFile(path, len(content), 0o600)


@pytest.mark.parametrize("algorithm", [*ChecksumAlgorithm, None])
def test_the_manifest_has_new_entries_for_what_is_new_and_keeps_the_others(
    algorithm: ChecksumAlgorithm | None,
) -> None:
    manifest = newest({LABEL: b"long label", WHOLE: b"whole", PART: b"part of it"}, algorithm)
    assert b"".join(manifest.watched(planned(WHOLE, b"whole"), [b"who", b"le"])) == b"whole"
    assert b"".join(manifest.watched(COMPOSED, [b"abc"])) == b"abc"
    assert [*manifest.watched(planned(LABEL, b"long label"), [b"long label"])]
    manifest.replace(LABEL, b"label")
    written = parse(b"".join(manifest.text()))
    assert dict(written.files) == {
        LABEL: entry(b"label", algorithm),
        WHOLE: entry(b"whole", algorithm),
        b"base/5/2": entry(b"abc", algorithm),
    }
    assert written.system_identifier == 7469021459732458133
    assert written.wal_ranges[0].start == Lsn.parse("0/2000028")


def test_a_file_that_is_not_what_the_manifest_says_is_damage() -> None:
    manifest = newest({WHOLE: b"whole"})
    with pytest.raises(FileDamaged, match="base/5/1' is not what the manifest describes"):
        list(manifest.watched(planned(WHOLE, b"whole"), [b"whale"]))
    with pytest.raises(FileDamaged, match="came with 4 bytes instead of 5"):
        list(manifest.watched(planned(WHOLE, b"whole"), [b"whol"]))
    with pytest.raises(FileDamaged, match="base/5/3' is not in the manifest"):
        list(manifest.watched(planned(b"base/5/3", b""), []))


def test_without_checksums_a_size_still_tells() -> None:
    manifest = newest({WHOLE: b"whole"}, None)
    with pytest.raises(FileDamaged, match="is not what the manifest describes"):
        list(manifest.watched(planned(WHOLE, b"holes!"), [b"holes!"]))


def test_a_file_of_the_manifest_that_never_comes_is_damage() -> None:
    manifest = newest({WHOLE: b"whole", PART: b"part"})
    list(manifest.watched(planned(WHOLE, b"whole"), [b"whole"]))
    with pytest.raises(FileDamaged, match="1 files of the manifest are not in the backup"):
        manifest.text()


def test_wal_is_none_of_the_manifests_files() -> None:
    manifest = newest({WHOLE: b"whole"})
    segment = planned(b"pg_wal/000000010000000000000002", b"log")
    assert [*manifest.watched(segment, [b"log"])] == [b"log"]
    list(manifest.watched(planned(WHOLE, b"whole"), [b"whole"]))
    assert list(parse(b"".join(manifest.text())).files) == [WHOLE]
