"""What is written as a backup_manifest is read back as the same, whatever the files are called."""

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from worker.postgres.backup_manifest import BackupManifest, ChecksumAlgorithm, WalRange, parse
from worker.postgres.manifest_files import ManifestFile, ManifestFiles
from worker.postgres.manifest_text import manifest_chunks

PARTS = st.binary(min_size=1, max_size=12).filter(
    lambda part: part not in {b".", b".."} and not {0, ord("/")} & set(part)
)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(b"/".join)
RANGES = st.builds(
    lambda timeline, start, length: WalRange(timeline, Lsn(start), Lsn(start + length)),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**63),
    st.integers(0, 2**40),
)


@st.composite
def files(draw: st.DrawFn) -> ManifestFile:
    algorithm = draw(st.none() | st.sampled_from(ChecksumAlgorithm))
    size = 0 if algorithm is None else algorithm.digest_size
    checksum = draw(st.binary(min_size=size, max_size=size))
    return ManifestFile(draw(st.integers(0, 2**62)), "2026-11-22 03:00:00 GMT", algorithm, checksum)


@st.composite
def manifests(draw: st.DrawFn) -> BackupManifest:
    held = ManifestFiles()
    for path, file in draw(st.dictionaries(PATHS, files(), min_size=1, max_size=20)).items():
        held.append(path, file)
    ranges = tuple(draw(st.lists(RANGES, min_size=1, max_size=3)))
    version = draw(st.sampled_from([1, 2]))
    return BackupManifest(version, 2**63 + 1 if version == 2 else None, held, ranges)


@given(manifests())
def test_a_manifest_that_was_written_is_read_as_the_same(manifest: BackupManifest) -> None:
    found = parse(b"".join(manifest_chunks(manifest, manifest.files.items())))
    assert (found.version, found.system_identifier) == (
        manifest.version,
        manifest.system_identifier,
    )
    assert list(found.files.items()) == list(manifest.files.items())
    assert found.wal_ranges == manifest.wal_ranges


def test_a_long_manifest_comes_in_pieces() -> None:
    entry = ManifestFile(8192, "2026-11-22 03:00:00 GMT", ChecksumAlgorithm.CRC32C, bytes(4))
    source = BackupManifest(2, 1, ManifestFiles(), (WalRange(1, Lsn(1), Lsn(2)),))
    chunks = list(manifest_chunks(source, ((b"base/5/%d" % n, entry) for n in range(5000))))
    assert len(chunks) > 5
    assert max(map(len, chunks)) < 1 << 17
    assert len(parse(b"".join(chunks)).files) == 5000
