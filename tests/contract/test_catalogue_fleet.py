"""What every catalogue promises of a fleet: ages, sizes and drills of many clusters at once."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from shared.catalogue.fleet_port import FleetMember
from shared.catalogue.ports import Catalogue
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.cluster import cluster_name
from shared.domain.drill import DrillVerdict
from shared.domain.freshness import WalFreshness
from shared.domain.lsn import Lsn
from shared.domain.storage_use import StorageSample
from shared.domain.wal_inventory import WalRange
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.header_verification import verify_header
from shared.repository.reports import read_report
from shared.repository.signatures import sign_document
from shared.repository.wal_listing import ArchiveSnapshot
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.memory_catalogue import MemoryCatalogue
from tests.harness.signed_repository import NOON, Committed, SignedRepository, drill_report

pytestmark = pytest.mark.integration

DEMO, OTHER = cluster_name("demo"), cluster_name("other")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
COMMITTING = timedelta(minutes=2)
TODAY = NOON.date()


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture(params=["postgres", "memory"])
def catalogue(request: pytest.FixtureRequest, server: CatalogueServer) -> Catalogue:
    memory = request.param == "memory"
    return MemoryCatalogue() if memory else PostgresCatalogue(server.database())


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path)
    for container in layout.CONTAINERS:
        store.create_container(container)
    made = SignedRepository(store)
    made.register("demo")
    made.register("other")
    return made


def record(catalogue: Catalogue, repository: SignedRepository, *backups: Committed) -> None:
    for backup in backups:
        catalogue.record(verify_header(repository.store, backup.ref, repository.pinned), NOON)


def take_in(catalogue: Catalogue, repository: SignedRepository, name: BlobName) -> None:
    catalogue.record(read_report(repository.store, name, repository.pinned), NOON)


def drill(repository: SignedRepository, of: Committed, number: str, **changes: object) -> BlobName:
    report = drill_report(of, number, DrillVerdict.PROVEN).model_copy(update=changes)
    name = layout.drill_report(of.ref.cluster, number)
    repository.store.create(name, sign_document(report, repository.signer))
    return name


def demo(catalogue: Catalogue) -> FleetMember:
    return catalogue.fleet([DEMO], NOON)[DEMO]


def test_every_cluster_asked_for_has_an_answer_and_is_first_seen_once(catalogue: Catalogue) -> None:
    first = catalogue.fleet([DEMO, OTHER], NOON)
    again = catalogue.fleet([OTHER], NOON + DAY)

    assert set(first) == {DEMO, OTHER}
    assert again[OTHER].ages.first_seen == NOON
    assert again[OTHER].used_bytes == 0
    assert (again[OTHER].ages.committed_at, again[OTHER].wal, again[OTHER].drills) == (
        None,
        None,
        (),
    )
    assert catalogue.fleet([], NOON) == {}


def test_ages_are_of_the_newest_that_is_committed_verified_and_proven(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    old, good, new = (repository.commit(at=NOON - days * DAY) for days in (9, 5, 1))
    other = repository.commit("other", at=NOON)
    record(catalogue, repository, old, good, new, other)
    for number, backup in enumerate((old, good)):
        take_in(catalogue, repository, repository.verify(backup, f"v{number}"))
    take_in(catalogue, repository, repository.verify(new, "v9", passed=False))
    take_in(catalogue, repository, drill(repository, old, "d1", created_at=NOON - 3 * DAY))
    failed = {"created_at": NOON - DAY, "verdict": DrillVerdict.FAILED}
    take_in(catalogue, repository, drill(repository, good, "d2", **failed))

    ages = demo(catalogue).ages

    assert ages.committed_at == NOON - DAY + COMMITTING
    assert ages.verified_at == NOON - 5 * DAY + COMMITTING
    assert ages.proven_at == NOON - 3 * DAY


def test_what_stands_on_a_damaged_ancestor_is_not_verified(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    full = repository.commit(at=NOON - 2 * DAY)
    child = repository.commit(at=NOON - DAY, parent=full.link, previous=full)
    record(catalogue, repository, full, child)
    take_in(catalogue, repository, repository.verify(child, "v1"))
    assert demo(catalogue).ages.verified_at == NOON - DAY + COMMITTING

    take_in(catalogue, repository, repository.verify(full, "v2", passed=False))

    assert demo(catalogue).ages.verified_at is None


def test_what_a_wrong_clock_dated_in_the_future_does_not_make_a_cluster_fresh(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    past, future = repository.commit(at=NOON - DAY), repository.commit(at=NOON + 400 * DAY)
    record(catalogue, repository, past, future)
    for number, backup in enumerate((past, future)):
        take_in(catalogue, repository, repository.verify(backup, f"v{number}"))
    take_in(catalogue, repository, drill(repository, past, "d1", created_at=NOON + 400 * DAY))

    seen = demo(catalogue)

    at = NOON - DAY + COMMITTING
    assert (seen.ages.committed_at, seen.ages.verified_at, seen.ages.proven_at) == (at, at, None)
    assert seen.drills == ()
    assert seen.stored_bytes == 2 * 43


def test_sizes_are_of_all_that_is_stored_and_of_what_a_recovery_now_would_move(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    full = repository.commit(at=NOON - 2 * DAY)
    child = repository.commit(
        at=NOON - DAY, parent=full.link, previous=full, start_lsn=Lsn.parse("0/4000000")
    )
    record(catalogue, repository, full, child)
    ranges = (
        WalRange(1, Lsn(0), Lsn(9), stored_bytes=500),
        WalRange(2, Lsn(0), Lsn(9), stored_bytes=7),
    )
    catalogue.put_archive_snapshot(DEMO, ArchiveSnapshot(segment_size=1, ranges=ranges), NOON)
    catalogue.record_freshness(
        WalFreshness("demo", NOON, NOON, timeline=1, through_lsn=Lsn.parse("0/6000000"))
    )

    seen = demo(catalogue)

    assert (seen.stored_bytes, seen.wal_bytes, seen.used_bytes) == (86, 507, 593)
    assert (seen.restored_bytes, seen.replayed_bytes) == (40, 0x2000000)
    assert seen.wal is not None
    assert seen.wal.through_lsn == Lsn.parse("0/6000000")


def test_the_log_of_another_timeline_is_nothing_to_replay(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    record(catalogue, repository, repository.commit(at=NOON - DAY))
    catalogue.record_freshness(
        WalFreshness("demo", NOON, NOON, timeline=2, through_lsn=Lsn.parse("9/6000000"))
    )
    assert demo(catalogue).replayed_bytes == 0


def test_only_the_newest_drills_that_passed_say_how_long_it_takes(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    backup = repository.commit(at=NOON - 30 * DAY)
    record(catalogue, repository, backup)
    for day in range(8):
        at = NOON - day * DAY
        name = drill(repository, backup, f"d{day}", created_at=at, rto_ms=day, replayed_bytes=11)
        take_in(catalogue, repository, name)
    broken = {"created_at": NOON + HOUR / 2, "verdict": DrillVerdict.FAILED}
    take_in(catalogue, repository, drill(repository, backup, "d9", **broken))

    drills = demo(catalogue).drills

    assert [one.rto_ms for one in drills] == [0, 1, 2, 3, 4]
    assert drills[0].at == NOON
    assert (drills[0].restored_bytes, drills[0].replayed_bytes) == (60, 11)
    assert drills[0].phases == {"plan": 1}


def test_of_each_day_the_last_sample_stays_and_those_of_a_year_ago_go(catalogue: Catalogue) -> None:
    catalogue.put_storage_samples({DEMO: 1, OTHER: 2}, TODAY - 401 * DAY)
    catalogue.put_storage_samples({DEMO: 3}, TODAY - DAY)
    catalogue.put_storage_samples({DEMO: 5}, TODAY)
    catalogue.put_storage_samples({DEMO: 4, OTHER: 6}, TODAY)

    found = catalogue.storage_samples([DEMO, OTHER], TODAY - 999 * DAY)

    assert found[DEMO] == [StorageSample(TODAY - DAY, 3), StorageSample(TODAY, 4)]
    assert found[OTHER] == [StorageSample(TODAY, 6)]
    assert catalogue.storage_samples([OTHER], TODAY + DAY) == {}


def test_d15_backups_that_reports_tell_of_are_missed_even_when_nothing_came_after_them(
    catalogue: Catalogue, repository: SignedRepository
) -> None:
    first, newest = repository.commit(at=NOON - DAY), repository.commit(at=NOON)
    record(catalogue, repository, first)
    take_in(catalogue, repository, repository.verify(first, "v1"))
    take_in(catalogue, repository, repository.verify(newest, "v2"))
    take_in(catalogue, repository, drill(repository, newest, "d1"))

    assert catalogue.lost_backups(NOON) == [newest.ref]
    assert catalogue.lost_backups(NOON + DAY) == []
    record(catalogue, repository, newest)
    assert catalogue.lost_backups(NOON) == []
