"""What the catalogue promises the guard: every chain of many clusters, and who of it is good."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from shared.catalogue.ports import Catalogue
from shared.domain.cluster import cluster_name
from shared.domain.drill import DrillVerdict
from shared.domain.needed_until import GuardedBackup
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.header_verification import verify_header
from shared.repository.reports import read_report
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.signed_repository import NOON, Committed, SignedRepository

pytestmark = pytest.mark.integration

DEMO, OTHER = cluster_name("demo"), cluster_name("other")

BOTH_CATALOGUES = True


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path)
    for container in layout.CONTAINERS:
        store.create_container(container)
    made = SignedRepository(store)
    made.register("demo")
    made.register("other")
    return made


def record(catalogue: Catalogue, repository: SignedRepository, backup: Committed) -> None:
    catalogue.record(verify_header(repository.store, backup.ref, repository.pinned), NOON)


def record_report(catalogue: Catalogue, repository: SignedRepository, name: BlobName) -> None:
    catalogue.record(read_report(repository.store, name, repository.pinned), NOON)


def test_chains_of_the_clusters_asked_for_come_with_their_parents_oldest_first(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    base = repository.commit("demo", at=NOON - timedelta(days=2))
    child = repository.commit("demo", at=NOON - timedelta(days=1), parent=base.link)
    other = repository.commit("other")
    for backup in (child, other, base):
        record(catalogue, repository, backup)

    assert catalogue.guarded_backups([DEMO]) == {
        DEMO: [
            GuardedBackup(base.ref.label, good=False),
            GuardedBackup(child.ref.label, base.ref.label, good=False),
        ]
    }
    both = catalogue.guarded_backups([OTHER, cluster_name("nobody"), DEMO])
    assert both.keys() == {DEMO, OTHER}
    assert catalogue.guarded_backups([]) == {}


def test_a_backup_is_good_when_it_was_found_sound_and_not_damaged_since(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    verified, spoilt, healed, drilled, undone, shallow, suspect = backups = [
        repository.commit(
            "demo", at=NOON - timedelta(days=day), page_checksum_failures=int(not day)
        )
        for day in range(6, -1, -1)
    ]
    at = NOON + timedelta(hours=2)
    reports = [
        repository.verify(verified, "v1"),
        repository.verify(spoilt, "v2"),
        repository.verify(spoilt, "v3", passed=False, created_at=at),
        repository.verify(healed, "v4", passed=False),
        repository.verify(healed, "v5", created_at=at),
        repository.drill(drilled, "d1", DrillVerdict.PROVEN),
        repository.verify(undone, "v8"),
        repository.drill(undone, "d2", DrillVerdict.FAILED),
        repository.verify(shallow, "v6", deep=False),
        repository.verify(suspect, "v7"),
    ]
    for backup in backups:
        record(catalogue, repository, backup)
    for name in reports:
        record_report(catalogue, repository, name)

    good = [one.label for one in catalogue.guarded_backups([DEMO])[DEMO] if one.good]
    assert good == [one.ref.label for one in (verified, healed, drilled)]
