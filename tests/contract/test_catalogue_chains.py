"""Chains in the control plane: damage below a backup shows at the backup, live and rebuilt."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

from functions.blob_incremental_committed import blob_incremental_committed
from functions.intake import take_in_backup, take_in_report
from functions.timer_reconcile import reconcile
from shared.catalogue.ports import Catalogue
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import rebuild
from shared.domain.backup import BackupFacts
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.jobs.messages import JOB_QUEUES, RESTORE_QUEUE
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import ChainLinkProof
from shared.repository.layout import ProofPointer
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import NOON, Committed, SignedRepository

HOUR = timedelta(hours=1)
BOTH_CATALOGUES = True


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


@pytest.fixture
def plane(catalogue: Catalogue, tmp_path: Path) -> ControlPlane:
    store = DirectoryBlobStore(tmp_path)
    for container in layout.CONTAINERS:
        store.create_container(container)
    repository = SignedRepository(store)
    repository.register()
    queues = {name: MemoryQueue() for name in JOB_QUEUES}
    return ControlPlane(repository, catalogue, queues)


def at(number: int) -> dict[str, Any]:
    return {"at": NOON + number * HOUR, "start_lsn": Lsn((2 + number) << 20)}


@pytest.fixture
def chain(plane: ControlPlane) -> list[Committed]:
    """A full backup, two incrementals, a branch from the first of them, and another full."""
    repository = plane.repository
    full = repository.commit(**at(0))
    first = repository.commit(**at(1), parent=full.link)
    second = repository.commit(**at(2), parent=first.link, depth=2)
    branch = repository.commit(**at(3), parent=first.link, depth=2)
    other = repository.commit(**at(4))
    made = [full, first, second, branch, other]
    for backup in made:
        take_in_backup(plane.services, backup.ref.document)
    return made


def judge(plane: ControlPlane, backup: Committed, hour: int, *, passed: bool, **more: Any) -> None:
    name = f"{backup.ref.label}-{hour}"
    report = plane.repository.verify(
        backup, name, passed=passed, created_at=NOON + hour * HOUR, **more
    )
    take_in_report(plane.services, report)


def facts(plane: ControlPlane, backup: Committed) -> BackupFacts:
    return plane.catalogue.backup(backup.ref).facts


def below(plane: ControlPlane, chain: list[Committed]) -> list[datetime | None]:
    return [facts(plane, backup).ancestor_failed_at for backup in chain]


def test_damage_of_an_ancestor_is_that_of_every_link_above_until_it_is_found_sound(
    plane: ControlPlane, chain: list[Committed]
) -> None:
    for backup in chain:
        judge(plane, backup, 5, passed=True)
    assert [facts(plane, backup).verified for backup in chain] == [True] * 5
    assert below(plane, chain) == [None] * 5

    judge(plane, chain[1], 6, passed=False)
    damaged = NOON + 6 * HOUR
    assert below(plane, chain) == [None, None, damaged, damaged, None]
    assert [facts(plane, backup).verified for backup in chain] == [True, False, False, False, True]
    assert facts(plane, chain[2]).verification_failed_at is None

    judge(plane, chain[0], 7, passed=False)
    assert below(plane, chain) == [None, *[NOON + 7 * HOUR] * 3, None]

    for backup in chain[:2]:
        judge(plane, backup, 8, passed=True)
    assert below(plane, chain) == [None] * 5
    assert [facts(plane, backup).verified for backup in chain] == [True] * 5


def test_no_wal_is_counted_from_a_backup_that_stands_on_a_damaged_one(
    plane: ControlPlane, chain: list[Committed]
) -> None:
    demo = ClusterName("demo")
    judge(plane, chain[4], 5, passed=False)
    newest = plane.catalogue.newest_base(demo)
    assert newest is not None
    assert newest.at == NOON + 3 * HOUR
    judge(plane, chain[1], 5, passed=False)
    left = plane.catalogue.newest_base(demo)
    assert left is not None
    assert left.at == NOON


def test_a_backup_on_a_damaged_one_is_still_asked_to_be_verified(
    plane: ControlPlane, chain: list[Committed]
) -> None:
    judge(plane, chain[0], 5, passed=False)
    never = plane.catalogue.never_verified(NOON + 9 * HOUR)
    assert [backup.ref for backup in never] == [backup.ref for backup in chain[1:]]


def test_a_rebuild_finds_the_same_breaks_and_the_same_damage(
    plane: ControlPlane, chain: list[Committed], server: CatalogueServer
) -> None:
    repository = plane.repository
    repository.store.delete(chain[1].ref.blob("index"))
    broken = repository.commit(**at(6), parent=chain[2].link, depth=7)
    take_in_backup(plane.services, broken.ref.document)
    judge(plane, chain[0], 7, passed=False)
    pointer = ProofPointer(chain[0].ref, NOON, "nobody-wrote-this")
    repository.store.create(layout.proof_pointer(pointer), b"")
    rebuilt = PostgresCatalogue(server.database())

    assert rebuild(rebuilt, repository.store, repository.pinned, NOON).refused == ()
    shown = rebuilt.backups(limit=9)
    assert [finding.code for finding in shown[0].findings] == ["chain-broken"]
    live = {backup.ref: backup for backup in plane.catalogue.backups(limit=9)}
    # What was lost after the event is what the rebuild alone can see.
    assert [item.ref for item in shown if item.findings != live[item.ref].findings] == [
        chain[1].ref
    ]
    assert [item.facts for item in shown] == [live[item.ref].facts for item in shown]


def test_an_incremental_s_event_makes_a_row_and_a_job(
    plane: ControlPlane, chain: list[Committed], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.take_jobs(RESTORE_QUEUE)
    new = plane.repository.commit(**at(5), parent=chain[0].link)
    monkeypatch.setattr("functions.blob_incremental_committed.services", lambda: plane.services)

    blob_incremental_committed(func.blob.InputStream(data=b"{}", name=str(new.ref.document)))

    assert plane.catalogue.backup(new.ref).findings == ()
    [job] = plane.take_jobs(RESTORE_QUEUE)
    assert job.model_dump()["label"] == new.ref.label.text


def test_reports_of_ancestors_that_a_verification_read_come_in_with_its_own(
    plane: ControlPlane, chain: list[Committed]
) -> None:
    full, first, second, *_ = chain
    plane.repository.verify(full, "old", created_at=NOON)
    plane.repository.verify(first, "found", passed=False, created_at=NOON + 6 * HOUR)
    proofs = tuple(
        ChainLinkProof(
            label=link.ref.label.text, digest=link.digest, report=report, remembered=remembered
        )
        for link, report, remembered in ((full, "old", True), (first, "found", False))
    )

    judge(plane, second, 7, passed=False, chain=proofs)

    assert facts(plane, first).verification_failed_at == NOON + 6 * HOUR
    assert facts(plane, full).verified_at is None


def test_pointers_are_no_documents_to_the_reconciler(
    plane: ControlPlane, chain: list[Committed]
) -> None:
    report = plane.repository.verify(chain[0], "v1")
    for name in ("v1", "nobody-wrote-this"):
        pointer = ProofPointer(chain[0].ref, NOON + HOUR, name)
        plane.repository.store.create(layout.proof_pointer(pointer), b"")

    reconcile(plane.services)

    assert plane.catalogue.set_aside_codes() == {}
    assert report in plane.catalogue.known_blobs()
    assert facts(plane, chain[0]).verified
