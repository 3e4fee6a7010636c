"""What the catalogue promises the watch over replication."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from shared.catalogue.ports import Catalogue
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import rebuild
from shared.domain.cluster import cluster_name
from shared.domain.freshness import WalFreshness
from shared.domain.replication import GeoReplication, PendingBackup, ReplicationState
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.header_verification import verify_header
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.signed_repository import NOON, Committed, SignedRepository

pytestmark = pytest.mark.integration

DEMO = cluster_name("demo")
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
LIVE, BOOTSTRAP = ReplicationState.LIVE, ReplicationState.BOOTSTRAP

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


@pytest.fixture
def chain(catalogue: Catalogue, repository: SignedRepository) -> list[Committed]:
    """A full backup and an incremental, recorded in the wrong order."""
    full = repository.commit(at=NOON - 2 * DAY)
    child = repository.commit(at=NOON - DAY, parent=full.link)
    for one in (child, full):
        record(catalogue, repository, one)
    return [full, child]


def record(catalogue: Catalogue, repository: SignedRepository, backup: Committed) -> None:
    catalogue.record(verify_header(repository.store, backup.ref, repository.pinned), NOON)


def pending(backup: Committed, parent: Committed | None = None, *, safe: bool) -> PendingBackup:
    at = backup.ref.label.time + timedelta(minutes=2, microseconds=NOON.microsecond)
    below = None if parent is None else parent.ref.label
    return PendingBackup(backup.ref.cluster, backup.ref.label, at, below, safe)


def test_backups_wait_from_the_day_they_are_recorded_until_they_are_marked(
    catalogue: Catalogue, repository: SignedRepository, chain: list[Committed]
) -> None:
    full, child = chain
    foreign = repository.commit("other", at=NOON - 3 * DAY)
    record(catalogue, repository, foreign)
    assert catalogue.pending_replication() == [
        pending(foreign, safe=True),
        pending(full, safe=True),
        pending(child, full, safe=False),
    ]

    catalogue.mark_geo_safe([pending(full, safe=True), pending(foreign, safe=True)], NOON)
    assert catalogue.pending_replication() == [pending(child, full, safe=True)]
    catalogue.mark_geo_safe([pending(full, safe=True)], NOON + DAY)
    catalogue.mark_geo_safe([], NOON)
    assert catalogue.backup(full.ref).facts.geo_safe_at == NOON
    assert catalogue.backup(child.ref).facts.geo_safe_at is None
    assert [one.facts.geo_safe_at for one in catalogue.backups(DEMO, limit=9)] == [None, NOON]


def test_a_child_of_a_parent_that_nobody_knows_waits(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    full = repository.commit(at=NOON - DAY)
    child = repository.commit(parent=full.link)
    record(catalogue, repository, child)
    assert catalogue.pending_replication() == [pending(child, full, safe=False)]


def test_i5_a_rebuild_keeps_what_is_known_and_equals_without_it(
    catalogue: Catalogue,
    server: CatalogueServer,
    repository: SignedRepository,
    chain: list[Committed],
) -> None:
    catalogue.mark_geo_safe([pending(chain[0], safe=True)], NOON)
    rebuild(catalogue, repository.store, repository.pinned, NOON + DAY)
    assert catalogue.backup(chain[0].ref).facts.geo_safe_at == NOON

    fresh = PostgresCatalogue(server.database())
    rebuild(fresh, repository.store, repository.pinned, NOON + DAY)
    assert fresh.content() == catalogue.content()
    assert len(fresh.pending_replication()) == 2


def test_last_sync_time_never_goes_back(catalogue: Catalogue) -> None:
    assert catalogue.last_sync_time() is None
    for step, expected in ((None, None), (3, 3), (1, 3), (None, 3), (5, 5)):
        told = None if step is None else NOON + step * MINUTE
        known = catalogue.note_replication(GeoReplication(LIVE, told), NOON)
        assert known == (None if expected is None else NOON + expected * MINUTE)
        assert catalogue.last_sync_time() == known


def test_wal_is_safe_when_last_sync_time_has_passed_the_look_that_saw_it(
    catalogue: Catalogue,
) -> None:
    def look(minute: int, protected: int | None) -> None:
        through = None if protected is None else NOON + protected * MINUTE
        at = NOON + minute * MINUTE
        catalogue.record_freshness(
            WalFreshness(cluster=DEMO, at=at, watched_since=NOON, protected_at=through)
        )

    look(0, None)
    catalogue.note_wal_copies(NOON + DAY)
    assert catalogue.wal_safe_through(DEMO) is None
    look(10, 9)
    catalogue.note_wal_copies(NOON)  # the first look that has anything to say
    look(15, 14)
    for minute, safe in ((11, None), (12, 9), (13, 9), (16, 9), (17, 14)):
        catalogue.note_wal_copies(NOON + minute * MINUTE)
        known = catalogue.wal_safe_through(DEMO)
        assert known == (None if safe is None else NOON + safe * MINUTE)
    catalogue.note_replication(GeoReplication(BOOTSTRAP), NOON)
    assert catalogue.wal_safe_through(DEMO) is None


def test_a_secondary_that_is_filled_anew_holds_nothing_yet(
    catalogue: Catalogue, chain: list[Committed]
) -> None:
    catalogue.note_replication(GeoReplication(LIVE, NOON), NOON)
    catalogue.mark_geo_safe([pending(one, safe=True) for one in chain], NOON)
    assert catalogue.pending_replication() == []

    for _ in range(2):
        assert catalogue.note_replication(GeoReplication(BOOTSTRAP, NOON), NOON + DAY) is None
    assert [one.label for one in catalogue.pending_replication()] == [
        one.ref.label for one in chain
    ]
    later = NOON - MINUTE  # of the new secondary; the time of the old one means nothing
    assert catalogue.note_replication(GeoReplication(LIVE, later), NOON + DAY) == later
