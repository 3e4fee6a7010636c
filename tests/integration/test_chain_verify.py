"""Verification of a chain: what it reads, what it remembers, and what it finds in any of the links.

The repository is a copy of one real chain of three in a directory: its files can be damaged.
"""

import base64
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
import pytest

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import cluster_name
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.documents import VerificationReport
from shared.repository.layout import BackupRef
from shared.repository.proofs import newest_verification
from shared.repository.reports import read_report
from tests.harness.chain_lab import ChainLab, chain_lab
from tests.harness.corrupt import flip_bit
from tests.harness.resealed import adopt, blob_file, plain_object, reseal, stored_backup
from tests.harness.worker_services import CLUSTER, Site, WatchedStore
from worker.commands.verify import WholeChainNeedsKey, verify
from worker.keys.generate import KeySet
from worker.pipeline.sealed_stream import SEGMENT_SIZE

pytestmark = [pytest.mark.integration, pytest.mark.fault]

VOLUME = "base.pgdata.0000"


@dataclass(frozen=True)
class Chain:
    """A full backup and two incrementals upon it."""

    site: Site
    full: BackupRef
    first: BackupRef
    second: BackupRef

    @property
    def links(self) -> tuple[BackupRef, ...]:
        return self.full, self.first, self.second

    def verify(self, ref: BackupRef | None = None, **options: Any) -> VerificationReport:
        return verify(self.site.services(), ref or self.second, **options)

    def newest(self, ref: BackupRef) -> VerificationReport | None:
        services = self.site.services()
        return newest_verification(services.store, stored_backup(self.site, ref), services.pinned)

    def damage(self, ref: BackupRef, name: str, change: Callable[[bytes], bytes]) -> None:
        path = blob_file(self.site, ref.blob(name))
        path.write_bytes(change(path.read_bytes()))


@dataclass
class ReadStore(WatchedStore):
    """Remembers the blobs of which ranges were read, and how many bytes of each."""

    read_bytes: dict[BlobName, int] = field(default_factory=dict)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        data = super().read_range(name, offset, length)
        with self._lock:
            self.read_bytes[name] = self.read_bytes.get(name, 0) + len(data)
        return data

    def volumes_of(self, ref: BackupRef) -> int:
        """Bytes that were read of the backup's volumes."""
        prefix = ref.blob("base.").path
        return sum(size for name, size in self.read_bytes.items() if name.path.startswith(prefix))


def take(lab: ChainLab, kind: BackupKind) -> BackupRef:
    """A backup of a table that grew since the one before."""
    with psycopg.connect(lab.source.dsn("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS grown (number int)")
        connection.execute("INSERT INTO grown SELECT generate_series(1, 9999)")
    return BackupRef(cluster_name(CLUSTER), BackupLabel.parse(lab.take(kind).label))


@pytest.fixture(scope="module")
def taken(worker_folder: Path, key_set: KeySet) -> Iterator[Chain]:
    """Read only: `chain` is yours."""
    # Another major in between ends this fixture, and a later test makes it anew.
    place = Path(mkdtemp(prefix="chain-verify-", dir=worker_folder))
    place.chmod(0o755)
    with chain_lab(17, key_set, place) as lab:
        full = take(lab, BackupKind.FULL)
        links = full, take(lab, BackupKind.INCREMENTAL), take(lab, BackupKind.INCREMENTAL)
        lab.source.stop()
        yield Chain(lab.site, *links)


@pytest.fixture
def chain(taken: Chain, place: Path) -> Chain:
    return Chain(taken.site.copied(place / "site"), *taken.links)


def in_the_middle(data: bytes) -> bytes:
    """One bit of the first segment's ciphertext, flipped."""
    return flip_bit(data, 8 * (min(len(data), SEGMENT_SIZE) // 2))


def codes(report: VerificationReport) -> list[tuple[str, str]]:
    return [(finding.object, finding.code) for finding in report.findings]


def how(report: VerificationReport) -> list[tuple[str, bool]]:
    return [(proof.label, proof.remembered) for proof in report.chain]


def names(*refs: BackupRef) -> list[str]:
    return [ref.label.text for ref in refs]


def test_the_first_verification_reads_every_link_and_the_next_one_what_is_new(
    chain: Chain,
) -> None:
    services = chain.site.services()
    store = ReadStore(services.store)
    watched = chain.site.services(store=store)

    report = verify(watched, chain.first)
    assert (report.passed, how(report)) == (True, [(chain.full.label.text, False)])
    assert report.stored_bytes < stored_backup(chain.site, chain.full).document.stored_size
    sizes = [
        sum(volume.stored_size for volume in stored_backup(chain.site, ref).document.volumes)
        for ref in chain.links
    ]
    assert [
        store.volumes_of(ref) >= size for ref, size in zip(chain.links, sizes, strict=True)
    ] == [
        True,
        True,
        False,
    ]
    [proof] = report.chain
    name = layout.verification_report(chain.full.cluster, proof.report)
    of_full = read_report(services.store, name, services.pinned).report
    assert of_full == chain.newest(chain.full)
    assert chain.newest(chain.first) == report

    store.read_bytes.clear()
    again = verify(watched, chain.second)
    assert again.passed
    assert how(again) == [(label, True) for label in names(chain.full, chain.first)]
    assert [item.report for item in again.chain] == [proof.report, report.id]
    assert [store.volumes_of(ref) for ref in chain.links[:2]] == [0, 0]
    assert store.volumes_of(chain.second) >= sizes[2]

    store.read_bytes.clear()
    whole = verify(watched, chain.second, whole_chain=True)
    assert whole.passed
    assert how(whole) == [(label, False) for label in names(chain.full, chain.first)]
    assert not {item.report for item in whole.chain} & {item.report for item in again.chain}
    assert all(store.volumes_of(ref) >= size for ref, size in zip(chain.links, sizes, strict=True))


def test_c04_damage_after_the_proof_is_found_by_reading_the_whole_chain_and_then_remembered(
    chain: Chain,
) -> None:
    assert chain.verify().passed
    chain.damage(chain.full, VOLUME, in_the_middle)
    assert chain.verify().passed

    found = chain.verify(whole_chain=True)
    assert codes(found) == [(chain.full.label.text, "ancestor-damaged")]
    where = f"archive pgdata: segment-corrupt: segment 0 of {chain.full.blob(VOLUME)}"
    assert where in found.findings[0].detail
    of_full = chain.newest(chain.full)
    assert of_full is not None
    assert not of_full.passed
    assert of_full.id in found.findings[0].detail

    still = chain.verify()
    assert codes(still) == codes(found)
    assert how(still) == [(label, False) for label in names(chain.full, chain.first)]

    chain.damage(chain.full, VOLUME, in_the_middle)
    assert chain.verify().passed
    assert how(chain.verify()) == [(label, True) for label in names(chain.full, chain.first)]


def test_c04_damage_of_an_ancestor_that_nobody_verified_is_found(chain: Chain) -> None:
    chain.damage(chain.first, VOLUME, in_the_middle)
    report = chain.verify()
    assert codes(report) == [(chain.first.label.text, "ancestor-damaged")]
    assert how(report) == [(label, False) for label in names(chain.full, chain.first)]
    passed = {ref: newest.passed for ref in chain.links if (newest := chain.newest(ref))}
    assert passed == {chain.full: True, chain.first: False, chain.second: False}
    assert chain.verify(chain.full).passed


def test_c04_c11_damage_of_one_branch_leaves_the_other_alone(place: Path, key_set: KeySet) -> None:
    with chain_lab(18, key_set, place) as lab:
        full = take(lab, BackupKind.FULL)
        assert verify(lab.site.services(), full).passed
        branches = [take(lab, BackupKind.INCREMENTAL) for _ in range(2)]
    chain = Chain(lab.site, full, *branches)
    parents = [stored_backup(lab.site, ref).document.parent for ref in branches]
    assert [link and link.label for link in parents] == [full.label.text] * 2

    chain.damage(chain.first, VOLUME, in_the_middle)

    assert codes(chain.verify(chain.first))[0] == ("archive pgdata", "segment-corrupt")
    report = chain.verify()
    assert (report.passed, how(report)) == (True, [(full.label.text, True)])


@pytest.mark.parametrize("lost", [VOLUME, layout.INDEX])
def test_a_part_of_a_remembered_ancestor_that_is_gone_is_missed_without_reading(
    chain: Chain, lost: str
) -> None:
    assert chain.verify().passed
    blob_file(chain.site, chain.full.blob(lost)).unlink()
    report = chain.verify()
    assert codes(report) == [(chain.full.label.text, "ancestor-damaged")]
    assert "blob-not-found" in report.findings[0].detail


def test_the_indexes_of_remembered_ancestors_are_read_each_time(chain: Chain) -> None:
    assert chain.verify().passed
    chain.damage(chain.full, layout.INDEX, in_the_middle)
    report = chain.verify()
    assert codes(report) == [(f"chain of {chain.second.label}", "segment-corrupt")]
    assert str(chain.full.blob(layout.INDEX)) in report.findings[0].detail


def test_a_key_record_of_an_ancestor_that_is_gone_is_damage_of_the_chain(chain: Chain) -> None:
    kid = stored_backup(chain.site, chain.full).document.kid
    blob_file(chain.site, layout.key_record(chain.full.cluster, kid)).unlink()
    report = chain.verify()
    assert codes(report) == [(chain.full.label.text, "ancestor-damaged")]
    assert kid in report.findings[0].detail
    assert (report.chain, report.files > 0) == ((), True)


def missing(chain: Chain) -> None:
    blob_file(chain.site, chain.first.document).unlink()


def replaced(chain: Chain) -> None:
    reseal(chain.site, chain.first, tool="somebody else's")


def forged(chain: Chain) -> None:
    chain.damage(
        chain.first, layout.BACKUP_DOCUMENT, lambda raw: raw.replace(b'"tool":"p', b'"tool":"q')
    )


@pytest.mark.parametrize(
    ("change", "code", "fact"),
    [
        (missing, "chain-broken", "which is gone"),
        (replaced, "chain-broken", "has digest"),
        (forged, "signature-invalid", ""),
    ],
)
def test_c02_c03_a_parent_that_is_not_the_one_that_was_meant_fails_every_verification(
    chain: Chain, change: Callable[[Chain], None], code: str, fact: str
) -> None:
    assert chain.verify().passed
    change(chain)
    for deep in (True, False):
        report = chain.verify(deep=deep)
        assert codes(report) == [(str(chain.second.document), code)]
        assert fact in report.findings[0].detail
        assert report.stored_bytes >= stored_backup(chain.site, chain.second).document.stored_size


Line = dict[str, Any]


def first_part(change: Callable[[Line], None]) -> Callable[[bytes], bytes]:
    """Change the index's line of the first file that was sent in part with blocks in it."""

    def changed(raw: bytes) -> bytes:
        lines = [json.loads(line) for line in raw.splitlines()]
        change(next(line for line in lines if line.get("incremental", {}).get("blocks")))
        made = (json.dumps(line, separators=(",", ":"), ensure_ascii=False) for line in lines)
        return "".join(f"{line}\n" for line in made).encode()

    return changed


def other_block(line: Line) -> None:
    blocks = array("I", base64.b64decode(line["incremental"]["blocks"]))
    blocks[-1] += 1
    line["incremental"]["blocks"] = base64.b64encode(blocks.tobytes()).decode()


def longer(line: Line) -> None:
    line["incremental"]["truncation"] += 1


def not_a_part(line: Line) -> None:
    del line["incremental"]


def elsewhere(line: Line) -> None:
    line["offset"] += 512


@pytest.mark.parametrize("lie", [other_block, longer, not_a_part, elsewhere])
def test_c09_an_index_that_lies_is_found_though_every_seal_and_signature_is_right(
    chain: Chain, lie: Callable[[Line], None]
) -> None:
    reseal(chain.site, chain.second, {layout.INDEX: first_part(lie)})
    report = chain.verify()
    assert not report.passed
    assert "index-differs" in {code for _, code in codes(report)}


def test_c09_an_ancestor_s_index_that_lies_is_found_too(chain: Chain) -> None:
    lying = reseal(chain.site, chain.first, {layout.INDEX: first_part(longer)})
    adopt(chain.site, chain.second, lying)
    report = chain.verify()
    assert codes(report) == [(chain.first.label.text, "ancestor-damaged")]
    assert "index-differs" in report.findings[0].detail


def test_c03_the_manifest_of_another_link_does_not_pass_for_the_own_one(chain: Chain) -> None:
    other = blob_file(chain.site, chain.first.blob(layout.BACKUP_MANIFEST))
    own = blob_file(chain.site, chain.second.blob(layout.BACKUP_MANIFEST))
    meant = own.read_bytes()
    own.write_bytes(other.read_bytes())
    assert {name for name, _ in codes(chain.verify())} == {layout.BACKUP_MANIFEST}
    own.write_bytes(meant)
    assert chain.verify().passed

    of_parent = plain_object(chain.site, chain.first, layout.BACKUP_MANIFEST)
    reseal(chain.site, chain.second, {layout.BACKUP_MANIFEST: lambda _: of_parent})
    assert codes(chain.verify()) == [(layout.BACKUP_MANIFEST, "manifest-differs")]


def test_c03_a_chain_that_skips_a_link_is_found_out_by_its_backup_label(chain: Chain) -> None:
    adopt(chain.site, chain.second, stored_backup(chain.site, chain.full))
    report = chain.verify()
    assert ("backup_label", "backup-label-differs") in codes(report)
    assert how(report) == [(chain.full.label.text, False)]


def test_a_verification_that_died_before_its_pointer_leaves_none_behind(chain: Chain) -> None:
    report = chain.verify(report_id="one")
    folder = chain.site.repository / layout.EVIDENCE / layout.proofs_prefix(chain.second)
    [pointer] = folder.iterdir()
    pointer.unlink()
    assert chain.newest(chain.second) is None
    chain.damage(chain.second, VOLUME, in_the_middle)
    assert chain.verify(report_id="one") == report
    assert chain.newest(chain.second) == report


def test_who_cannot_sign_proves_and_leaves_nothing_behind(chain: Chain) -> None:
    report = verify(chain.site.services(signer=None), chain.second)
    assert report.passed
    assert how(report) == [(label, False) for label in names(chain.full, chain.first)]
    assert chain.newest(chain.full) is None


def test_the_command_names_the_links_that_it_read_and_remembered(chain: Chain) -> None:
    with pytest.raises(WholeChainNeedsKey):
        chain.verify(deep=False, whole_chain=True)
    newest = ("--label", chain.second.label.text)
    assert chain.verify().passed
    said = chain.site.pgkeep("verify", CLUSTER, *newest)
    assert said.returncode == 0, said.stderr
    for label in names(chain.full, chain.first):
        assert f"builds on {label}: remembered, report " in said.stdout

    chain.damage(chain.full, VOLUME, in_the_middle)
    said = chain.site.pgkeep("verify", CLUSTER, *newest, "--whole-chain")
    assert said.returncode == 5, said.stderr
    assert f"builds on {chain.full.label}: read now, report " in said.stdout
    assert f"ancestor-damaged: {chain.full.label}: report " in said.stdout
