"""Somebody changed the repository: each change is noticed, named, and nothing startable is written.

The repository is a copy of one real backup in a directory, so that its files can be damaged.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from local.postgres_server import PostgresServer
from shared.errors import BlobNotFound, Corrupt, Denied, PgkeepError, SegmentCorrupt
from shared.repository.backups import DocumentMisplaced
from shared.repository.signatures import DocumentInvalid, SignatureInvalid, SignerNotPinned
from tests.harness.corrupt import flip_bit
from tests.harness.worker_services import Site, make_site, startable
from worker.commands.drill import DrillRequest, drill
from worker.commands.list_backups import list_all
from worker.commands.opened_backup import BackupIncomplete
from worker.commands.verify import verify
from worker.keys.generate import KeySet, generate_key_set
from worker.keys.key_ring import NoUsableKey
from worker.pipeline.sealed_stream import HEADER_LENGTH, SEGMENT_SIZE

pytestmark = [pytest.mark.integration, pytest.mark.fault]


@pytest.fixture(scope="module")
def one_volume(worker_folder: Path, key_set: KeySet, source_cluster: PostgresServer) -> Site:
    """A backup in a single volume of several segments."""
    site = make_site(worker_folder / "one-volume", key_set, source_cluster)
    site.changed(worker={"volume_bytes": 1 << 30}).backup()
    return site


@pytest.fixture
def copy(committed_site: Site, place: Path) -> Site:
    return committed_site.copied(place / "site")


def blob(site: Site, name: str) -> Path:
    ref = site.newest()
    return site.repository / ref.blob(name).container / ref.blob(name).path


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def refused(site: Site, place: Path) -> PgkeepError:
    """What a restore of the damaged repository raises; it left nothing that could be started."""
    target = place / "restored" / "data"
    with pytest.raises(PgkeepError) as caught:
        site.restore(target)
    assert not startable(target)
    if target.exists() and any(target.iterdir()):
        assert (target / "RESTORE_INCOMPLETE").exists()
    return caught.value


@pytest.mark.parametrize(
    "offset",
    [0, 5, HEADER_LENGTH, SEGMENT_SIZE // 2, SEGMENT_SIZE - 1, SEGMENT_SIZE, -1],
    ids=["length", "salt", "data", "middle", "tag", "next segment", "last tag"],
)
def test_one_flipped_bit_of_a_volume_is_found_by_verification_and_refused_by_restore(
    one_volume: Site, place: Path, offset: int
) -> None:
    copy = one_volume.copied(place / "site")
    volume = blob(copy, "base.pgdata.0000")
    size = volume.stat().st_size
    assert size > SEGMENT_SIZE + HEADER_LENGTH
    damage(volume, lambda data: flip_bit(data, (offset % size) * 8))
    report = verify(copy.services(), copy.newest())
    assert not report.passed
    assert {finding.code for finding in report.findings} & {"segment-corrupt", "digest-mismatch"}
    error = refused(copy, place)
    assert isinstance(error, SegmentCorrupt)
    assert "base.pgdata.0000" in error.fact


@pytest.mark.parametrize("name", ["index", "backup_manifest"])
def test_a_damaged_index_or_manifest_is_refused_before_a_byte_is_written(
    copy: Site, place: Path, name: str
) -> None:
    damage(blob(copy, name), lambda data: flip_bit(data, 8 * HEADER_LENGTH + 3))
    assert not verify(copy.services(), copy.newest()).passed
    assert name in refused(copy, place).fact
    assert not (place / "restored" / "data").exists()


def test_damaged_facts_fail_verification_and_the_drill(copy: Site) -> None:
    damage(blob(copy, "facts"), lambda data: flip_bit(data, 8 * HEADER_LENGTH))
    report = verify(copy.services(), copy.newest())
    assert [finding.object for finding in report.findings] == ["facts"]
    found = drill(copy.services(), copy.cluster, DrillRequest())
    assert found.verdict == "failed"
    assert "facts" in found.reason


def test_a_damaged_volume_fails_the_drill(copy: Site) -> None:
    damage(blob(copy, "base.pgdata.0001"), lambda data: flip_bit(data, 8 * SEGMENT_SIZE // 2))
    found = drill(copy.services(), copy.cluster, DrillRequest())
    assert found.verdict == "failed"
    assert "base.pgdata.0001" in found.reason


def test_a_lost_and_a_cut_volume_are_both_named_before_a_byte_is_written(
    copy: Site, place: Path
) -> None:
    blob(copy, "base.pgdata.0000").unlink()
    damage(blob(copy, "base.pgdata.0001"), lambda data: data[:-1])
    error = refused(copy, place)
    assert isinstance(error, BackupIncomplete)
    assert "base.pgdata.0000" in error.fact
    assert "base.pgdata.0001" in error.fact
    assert not (place / "restored" / "data").exists()


def test_a_volume_of_another_backup_does_not_open(copy: Site, place: Path) -> None:
    first = blob(copy, "backup.json").parent
    copy.backup()
    second = blob(copy, "backup.json").parent
    assert first != second
    for name in ("base.pgdata.0000", "base.pgdata.0001"):
        shutil.copyfile(first / name, second / name)
    assert isinstance(refused(copy, place), Corrupt)
    assert not verify(copy.services(), copy.newest()).passed


@pytest.mark.parametrize("position", [2, 400, -3])
def test_a_changed_document_is_not_believed(copy: Site, place: Path, position: int) -> None:
    document = blob(copy, "backup.json")
    size = document.stat().st_size
    damage(document, lambda data: flip_bit(data, 8 * (position % size)))
    error = refused(copy, place)
    assert isinstance(error, DocumentInvalid | SignatureInvalid | SignerNotPinned)
    (listed,) = list_all(copy.services(), None)
    assert listed.stored is None
    assert listed.problem is not None
    assert error.code in listed.problem


def test_a_document_under_another_name_is_not_believed(copy: Site) -> None:
    document = blob(copy, "backup.json")
    other = document.parent.with_name("20200101T000000Z-F-aaaa")
    shutil.copytree(document.parent, other)
    problems = [item.problem for item in list_all(copy.services(), None) if item.problem]
    assert len(problems) == 1
    assert DocumentMisplaced.code in problems[0]


def test_documents_of_a_signer_that_is_not_pinned_are_not_believed(copy: Site, place: Path) -> None:
    strangers = generate_key_set(place / "strangers")
    other = copy.changed(
        keys={
            "signing": {"type": "pem", "path": str(strangers.signing.private)},
            "pinned": [{"path": str(strangers.signing.public)}],
        }
    )
    assert isinstance(refused(other, place), SignerNotPinned)


def test_a_key_that_opens_nothing_is_told_apart_from_damage(copy: Site, place: Path) -> None:
    strangers = generate_key_set(place / "strangers")
    other = copy.changed(
        keys={"unwrap": [{"type": "pem", "path": str(strangers.wrapping.private)}]}
    )
    error = refused(other, place)
    assert isinstance(error, NoUsableKey)
    assert "pem:" in error.fact


def test_the_escrow_key_alone_restores(copy: Site, place: Path) -> None:
    other = copy.changed(keys={"unwrap": [{"type": "pem", "path": str(copy.keys.escrow.private)}]})
    other.restore(place / "restored" / "data")
    assert startable(place / "restored" / "data")


def test_a_changed_or_missing_key_record_is_refused(copy: Site, place: Path) -> None:
    ref = copy.newest()
    records = sorted((copy.repository / "evidence" / ref.cluster / "keys").iterdir())
    for record in records:
        damage(record, lambda data: flip_bit(data, 8 * 60))
    assert isinstance(refused(copy, place), Corrupt | Denied)
    for record in records:
        record.unlink()
    assert isinstance(refused(copy, place), BackupIncomplete | BlobNotFound)
