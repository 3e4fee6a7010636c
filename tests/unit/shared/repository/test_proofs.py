"""What is remembered of a backup is its newest report that decides, whatever lies beside it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shared.errors import StorageUnavailable
from shared.repository import layout
from shared.repository.backups import StoredBackup, read_backup
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import VerificationReport
from shared.repository.layout import ProofPointer
from shared.repository.proofs import newest_verification, remember
from shared.repository.signatures import sign_document
from tests.harness.signed_repository import NOON, Ed25519Signer, SignedRepository


@dataclass
class CountedStore(DirectoryBlobStore):
    """Counts the reports that are read; storage is away for the names in `away`."""

    root: Path
    read_names: list[BlobName] = field(default_factory=list)
    away: bool = False

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def read(self, name: BlobName, *, limit: int) -> bytes:
        self.read_names.append(name)
        if self.away:
            raise StorageUnavailable("no answer")
        return super().read(name, limit=limit)


@dataclass
class Backup:
    """One backup, and reports about it."""

    store: CountedStore
    repository: SignedRepository
    stored: StoredBackup

    def report(self, at: datetime, *, passed: bool = True, **changes: Any) -> VerificationReport:
        fields: dict[str, Any] = {
            "id": str(uuid4()),
            "cluster": self.stored.ref.cluster,
            "label": self.stored.ref.label.text,
            "document_digest": self.stored.digest,
            "deep": True,
            "passed": passed,
            "created_at": at,
            **dict.fromkeys(("total_ms", "segments", "files", "stored_bytes", "plain_bytes"), 1),
        }
        return VerificationReport(**{**fields, **changes})

    def keep(
        self, report: VerificationReport, signer: Ed25519Signer | None = None
    ) -> VerificationReport:
        name = layout.verification_report(self.stored.ref.cluster, report.id)
        self.store.create(name, sign_document(report, signer or self.repository.signer))
        remember(self.store, report)
        return report

    def point(self, at: datetime, report_id: str) -> None:
        pointer = ProofPointer(self.stored.ref, at, report_id)
        self.store.create(layout.proof_pointer(pointer), b"")

    def newest(self) -> VerificationReport | None:
        self.store.read_names.clear()
        return newest_verification(self.store, self.stored, self.repository.pinned)


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    store = CountedStore(tmp_path)
    for container in layout.CONTAINERS:
        store.create_container(container)
    repository = SignedRepository(store)
    repository.register()
    committed = repository.commit()
    return Backup(store, repository, read_backup(store, committed.ref, repository.pinned))


def after(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_the_newest_report_decides_passed_or_not(backup: Backup) -> None:
    assert backup.newest() is None
    older = backup.keep(backup.report(after(1)))
    assert backup.newest() == older
    failed = backup.keep(backup.report(after(3), passed=False))
    backup.keep(backup.report(after(2)))
    assert backup.newest() == failed
    again = backup.keep(backup.report(after(3) + timedelta(microseconds=1)))
    remember(backup.store, again)
    assert backup.newest() == again
    assert len(backup.store.read_names) == 1


def test_what_is_no_proof_of_this_document_is_passed_over(backup: Backup) -> None:
    proof = backup.keep(backup.report(after(1)))
    shallow = backup.keep(backup.report(after(2), deep=False))
    backup.point(after(2), shallow.id)
    backup.keep(backup.report(after(3), document_digest="e" * 64))
    backup.keep(backup.report(after(4)), Ed25519Signer())
    assert backup.newest() == proof
    assert len(backup.store.read_names) == 4


def test_damage_that_a_shallow_verification_found_is_remembered(backup: Backup) -> None:
    backup.keep(backup.report(after(1)))
    damaged = backup.keep(backup.report(after(2), passed=False, deep=False))
    assert backup.newest() == damaged


def test_a_pointer_that_lies_is_not_believed(backup: Backup) -> None:
    """With its time wrong, a pointer could put an old success before a newer failure."""
    passed = backup.keep(backup.report(after(1)))
    failed = backup.keep(backup.report(after(2), passed=False))
    other = backup.repository.commit(at=after(60))
    elsewhere = backup.report(after(5), label=other.ref.label.text, document_digest=other.digest)
    backup.keep(elsewhere)
    backup.point(after(3), passed.id)
    backup.point(after(4), "nobody-wrote-this")
    backup.point(after(5), elsewhere.id)
    folder = layout.proofs_prefix(backup.stored.ref)
    backup.store.create(BlobName(layout.EVIDENCE, f"{folder}junk"), b"")
    assert backup.newest() == failed


def test_junk_costs_few_reads_and_hides_at_most_that_anything_was_proved(backup: Backup) -> None:
    backup.keep(backup.report(after(1)))
    for minute in range(100, 150):
        backup.point(after(minute), f"junk-{minute}")
    assert backup.newest() is None
    assert len(backup.store.read_names) <= 4


def test_storage_that_is_away_is_not_taken_for_nothing_proved(backup: Backup) -> None:
    backup.keep(backup.report(after(1)))
    backup.store.away = True
    with pytest.raises(StorageUnavailable):
        backup.newest()
