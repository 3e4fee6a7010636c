"""A chain is read from its newest link down, and every link must be the one that was meant."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.domain.lsn import Lsn
from shared.errors import ChainBroken
from shared.repository import layout
from shared.repository.backups import StoredBackup, read_backup
from shared.repository.chains import StoredChain, read_chain
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import BackupLink, PostgresFacts
from shared.repository.signatures import SignatureInvalid
from tests.harness.signed_repository import NOON, Committed, SignedRepository, backup_document

POSTGRES = backup_document("demo").postgres


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path)
    for container in layout.CONTAINERS:
        store.create_container(container)
    made = SignedRepository(store)
    made.register()
    return made


def hour(number: int) -> dict[str, Any]:
    return {"at": NOON + timedelta(hours=number), "start_lsn": Lsn((2 + number) << 20)}


def stored(repository: SignedRepository, backup: Committed) -> StoredBackup:
    return read_backup(repository.store, backup.ref, repository.pinned)


def chain_to(repository: SignedRepository, backup: Committed) -> StoredChain:
    return read_chain(repository.store, stored(repository, backup), repository.pinned)


def test_c11_two_branches_of_one_parent_are_two_chains(repository: SignedRepository) -> None:
    full = repository.commit(**hour(0))
    first = repository.commit(**hour(1), parent=full.link)
    second = repository.commit(**hour(2), parent=first.link, depth=2)
    branch = repository.commit(**hour(3), parent=first.link, depth=2)

    assert chain_to(repository, full).labels == (full.ref.label.text,)
    chain = chain_to(repository, second)
    assert chain.labels == tuple(link.ref.label.text for link in (full, first, second))
    assert chain.full.digest == full.digest
    assert chain.newest.digest == second.digest
    assert chain_to(repository, branch).labels == (*chain.labels[:2], branch.ref.label.text)


def test_c02_a_chain_whose_parent_is_gone_says_which(repository: SignedRepository) -> None:
    full = repository.commit(**hour(0))
    first = repository.commit(**hour(1), parent=full.link)
    repository.store.delete(full.ref.document)
    with pytest.raises(ChainBroken, match=f"needs {full.ref.label}, which is gone"):
        chain_to(repository, first)


def test_c03_a_parent_that_was_replaced_is_refused(repository: SignedRepository) -> None:
    full = repository.commit(**hour(0))
    wrong = BackupLink(label=full.ref.label.text, digest="1" * 64)
    first = repository.commit(**hour(1), parent=wrong)
    with pytest.raises(ChainBroken, match=f"has digest {full.digest} instead of 1111"):
        chain_to(repository, first)


def test_r04_a_parent_that_nobody_signed_is_not_believed(repository: SignedRepository) -> None:
    full = repository.commit(**hour(0))
    first = repository.commit(**hour(1), parent=full.link)
    raw = repository.store.read(full.ref.document, limit=1 << 20)
    repository.store.delete(full.ref.document)
    repository.store.create(full.ref.document, raw.replace(b"pgkeep test", b"pgkeep best"))
    with pytest.raises(SignatureInvalid):
        chain_to(repository, first)


def with_facts(**changes: Any) -> PostgresFacts:
    return POSTGRES.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"system_identifier": "7000000000000000001"}, "is of system 7469021459732458133, not 7"),
        ({"start_lsn": Lsn(1)}, "starts at 0/200000, not before 0/1"),
        ({"start_lsn": Lsn(2 << 20)}, "starts at 0/200000, not before 0/200000"),
        ({"postgres": with_facts(version_num=180001)}, "is of PostgreSQL 17, not 18"),
        ({"postgres": with_facts(data_checksums=False)}, "page-checksum setting"),
        ({"postgres": with_facts(block_size=4096)}, "another block size"),
    ],
)
def test_c03_c10_a_parent_that_cannot_be_one_is_refused(
    repository: SignedRepository, changes: dict[str, Any], fact: str
) -> None:
    """What pg_combinebackup refuses (005_integrity), and trap 22: checksums changed in between."""
    full = repository.commit(**hour(0))
    first = repository.commit(**{**hour(1), "parent": full.link, **changes})
    with pytest.raises(ChainBroken, match=fact):
        chain_to(repository, first)


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match="1 validation error") as error:
        make()
    return str(error.value)


def test_a_document_cannot_be_incremental_by_half() -> None:
    link = BackupLink(label="20261122T030000Z-F-aaaa", digest="0" * 64)
    assert "has a depth" in refused(lambda: backup_document("demo", parent=link, depth=0))
    assert "has a depth" in refused(lambda: backup_document("demo", depth=1))
    assert "only a full backup is synthetic" in refused(
        lambda: backup_document("demo", parent=link, composed_of=link)
    )
    assert "names its parent" in refused(
        lambda: backup_document("demo", label="20261122T030000Z-I-aaaa", kind="incremental")
    )
