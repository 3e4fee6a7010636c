"""The documents of a chain are walked down to the full backup, and the first break is a finding."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.domain.lsn import Lsn
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import BackupLink
from shared.repository.header_verification import verify_header
from tests.harness.signed_repository import NOON, Committed, Ed25519Signer, SignedRepository


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


def chain(repository: SignedRepository) -> list[Committed]:
    """A full backup and three incrementals."""
    links = [repository.commit(**hour(0))]
    for number in range(1, 4):
        links.append(repository.commit(**hour(number), parent=links[-1].link, depth=number))
    return links


def findings(repository: SignedRepository, backup: Committed) -> list[tuple[str, str]]:
    found = verify_header(repository.store, backup.ref, repository.pinned).findings
    assert {item.code for item in found} <= {"chain-broken"}
    return [(item.object, item.detail) for item in found]


def test_a_whole_chain_and_a_branch_of_it_have_no_findings(repository: SignedRepository) -> None:
    full, first, second, third = chain(repository)
    branch = repository.commit(**hour(4), parent=first.link, depth=2)
    for link in (full, first, second, third, branch):
        assert findings(repository, link) == []


def test_c02_a_break_further_up_is_a_finding_of_every_link_above_it(
    repository: SignedRepository,
) -> None:
    full, first, second, third = chain(repository)
    repository.store.delete(full.ref.document)
    for link in (first, second, third):
        [(name, fact)] = findings(repository, link)
        assert name == str(full.ref.document)
        assert fact == f"{first.ref.label} needs it as its parent"


def test_c03_an_ancestor_that_was_replaced_or_cannot_be_one_is_a_finding(
    repository: SignedRepository,
) -> None:
    full = repository.commit(**hour(0))
    wrong = BackupLink(label=full.ref.label.text, digest="1" * 64)
    first = repository.commit(**hour(1), parent=wrong)
    second = repository.commit(**hour(2), parent=first.link, depth=2)
    [(name, fact)] = findings(repository, second)
    assert name == str(full.ref.document)
    assert full.digest in fact

    early = repository.commit(**{**hour(3), "start_lsn": Lsn(1)}, parent=second.link, depth=3)
    [(name, fact)] = findings(repository, early)
    assert name == str(second.ref.document)
    assert "not before 0/1" in fact


def test_an_ancestor_that_nobody_signed_counts_as_absent(repository: SignedRepository) -> None:
    full = repository.commit(**hour(0), signer=Ed25519Signer())
    first = repository.commit(**hour(1), parent=full.link)
    assert findings(repository, first) == [
        (str(full.ref.document), f"{first.ref.label} needs it as its parent")
    ]


def test_a_depth_that_does_not_count_the_links_is_a_finding_and_ends_no_walk(
    repository: SignedRepository,
) -> None:
    full = repository.commit(**hour(0))
    first = repository.commit(**hour(1), parent=full.link, depth=3)
    second = repository.commit(**hour(2), parent=first.link, depth=4)
    expected = (str(first.ref.document), "depth 3 on a parent of depth 0")
    assert findings(repository, first) == [expected]
    assert findings(repository, second) == [expected]
