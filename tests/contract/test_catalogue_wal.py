"""The contract of WalFacts in shared.catalogue.ports, on a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from shared.catalogue import finding_ledger
from shared.catalogue.ports import Catalogue
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.cluster import cluster_name
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import Finding
from shared.domain.freshness import BackupBase, SlotState, WalFreshness, WalGap
from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.domain.wal_inventory import ArchivedWal, WalInventory
from shared.errors import CatalogueUnavailable, CatalogueValueRefused
from shared.jobs.wal_events import WalConflictSeen, WalEvent, WalGapSeen, WalProgress
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.header_verification import verify_header
from shared.repository.reports import read_report
from shared.repository.wal_listing import ArchiveSnapshot
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.deadline import wait_until
from tests.harness.signed_repository import NOON, Committed, SignedRepository

DEMO = cluster_name("demo")
OTHER = cluster_name("other")
MINUTE = timedelta(minutes=1)
WAL_SCOPE = [FindingScope.WAL]
BEHIND = Finding(FindingCode.BEHIND, "archive", NOON, "900 s behind")
GAP = Finding(FindingCode.GAP, "timeline 1 before 0/2000000", NOON, "a gap")
BOTH_CATALOGUES = True


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def dsn(server: CatalogueServer) -> str:
    return server.database()


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


def progress(minute: int, writer: str = "receive", **more: object) -> WalProgress:
    made = WalProgress(
        cluster="demo",
        at=NOON + minute * MINUTE,
        writer="receive",
        host="db1/1",
        timeline=1,
        server_lsn=Lsn(minute),
    )
    return made.model_copy(update={"writer": writer, **more})


def conflict(minute: int, name: str = "0000000100000000000000A7") -> WalConflictSeen:
    return WalConflictSeen(
        cluster="demo",
        at=NOON + minute * MINUTE,
        writer="agent",
        host="db2/1",
        name=name,
        stored_sha256=None,
        offered_sha256="a" * 64,
    )


def gap(minute: int, end: int = 2 << 24) -> WalGapSeen:
    return WalGapSeen(
        cluster="demo",
        at=NOON + minute * MINUTE,
        writer="receive",
        host="db1/1",
        timeline=1,
        from_lsn=Lsn(1 << 24),
        to_lsn=Lsn(end),
    )


DAY = timedelta(days=1)
LATER = NOON + DAY
EVENTS: tuple[WalEvent, ...] = (
    progress(1),
    progress(2),
    progress(2, host="db1/2"),
    progress(1, "agent"),
    conflict(1),
    conflict(3),
    conflict(2, "0000000100000000000000A8"),
    gap(1),
    gap(2),
    gap(1, end=3 << 24),
)


class TestReports:
    def test_d03_ten_deliveries_are_one_report(self, catalogue: Catalogue, dsn: str) -> None:
        for event in (progress(1), conflict(1), gap(1)):
            new = [catalogue.record_wal_event(event, NOON + n * DAY) for n in range(1, 11)]
            assert new == [True] + [False] * 9

        assert catalogue.wal_events(DEMO) == [conflict(1), gap(1), progress(1)]
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(*) FROM wal_report").fetchone() == (3,)

    def test_d04_an_older_report_never_replaces_a_newer(self, catalogue: Catalogue) -> None:
        for events in permutations([progress(1), progress(2), progress(3)]):
            for event in events:
                catalogue.record_wal_event(event, LATER)
            assert catalogue.wal_events(DEMO) == [progress(3)]

    @settings(
        max_examples=8,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(order=st.permutations(EVENTS), again=st.lists(st.sampled_from(EVENTS), max_size=4))
    def test_d04_any_order_with_any_duplicates_gives_the_same_end(
        self, server: CatalogueServer, order: list[WalEvent], again: list[WalEvent]
    ) -> None:
        catalogue = PostgresCatalogue(server.database())
        for event in (*order, *again):
            catalogue.record_wal_event(event, LATER)

        assert catalogue.wal_events(DEMO) == [
            conflict(3),
            conflict(2, "0000000100000000000000A8"),
            gap(2),
            gap(1, end=3 << 24),
            progress(1, "agent"),
            progress(2, host="db1/2"),
        ]

    def test_each_writer_and_each_cluster_has_its_own(self, catalogue: Catalogue) -> None:
        mine = [progress(2), progress(1, "agent")]
        for event in (*mine, progress(5, cluster="other")):
            catalogue.record_wal_event(event, LATER)

        assert sorted(catalogue.wal_events(DEMO), key=lambda one: one.writer, reverse=True) == mine
        assert catalogue.wal_events(OTHER) == [progress(5, cluster="other")]

    def test_a_time_in_the_future_does_not_silence_the_reports_that_follow(
        self, catalogue: Catalogue
    ) -> None:
        catalogue.record_wal_event(progress(60 * 24 * 365), NOON)
        [kept] = catalogue.wal_events(DEMO)
        assert kept.at == NOON

        assert catalogue.record_wal_event(progress(1), NOON + MINUTE)
        assert catalogue.wal_events(DEMO) == [progress(1)]

    def test_d06_null_bytes_are_refused_by_name(self, catalogue: Catalogue) -> None:
        with pytest.raises(CatalogueValueRefused):
            catalogue.record_wal_event(progress(1, host="a\0b"), LATER)
        assert catalogue.wal_events(DEMO) == []

    def test_concurrent_deliveries_leave_the_newest(self, catalogue: Catalogue) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: catalogue.record_wal_event(progress(n), LATER), range(24)))

        assert catalogue.wal_events(DEMO) == [progress(23)]


def seen(minute: int) -> WalFreshness:
    return WalFreshness(
        cluster="demo",
        at=NOON + minute * MINUTE,
        watched_since=NOON,
        timeline=1,
        through_lsn=Lsn(2 << 40),
        through_commit=NOON,
        protected_at=NOON,
        lag_seconds=60.5,
        server_lsn=Lsn((2 << 40) + 1),
        unarchived_bytes=1,
        reported_at=NOON,
        slot=SlotState("pgkeep", active=True, keep_bytes=1 << 40),
        gaps=(WalGap(1, Lsn(1), Lsn(2), NOON, reported=True),),
    )


def taken(turn: int) -> ArchiveSnapshot:
    items = [
        ArchivedWal(1, Lsn(0), Lsn(1 << 24), NOON, NOON, (RestorePoint(Lsn(5), "p", NOON),), 9),
        ArchivedWal(1, Lsn(2 << 24), Lsn(3 << 24)),
    ]
    ranges = WalInventory().adding(items).ranges
    return ArchiveSnapshot(segment_size=1 << 24, turn=turn, ranges=ranges)


class TestLooks:
    def test_freshness_and_snapshot_are_read_back_to_the_letter(self, catalogue: Catalogue) -> None:
        assert (catalogue.freshness(DEMO), catalogue.archive_snapshot(DEMO)) == (None, None)
        catalogue.record_freshness(seen(1))
        catalogue.put_archive_snapshot(DEMO, taken(1), NOON)

        assert catalogue.freshness(DEMO) == seen(1)
        assert catalogue.archive_snapshot(DEMO) == taken(1)
        assert (catalogue.freshness(OTHER), catalogue.archive_snapshot(OTHER)) == (None, None)

    def test_an_older_look_never_replaces_a_newer(self, catalogue: Catalogue) -> None:
        for minute in (1, 3, 2):
            catalogue.record_freshness(seen(minute))
            catalogue.put_archive_snapshot(DEMO, taken(minute), NOON + minute * MINUTE)

        assert catalogue.freshness(DEMO) == seen(3)
        assert catalogue.archive_snapshot(DEMO) == taken(3)

    def test_what_another_release_wrote_is_found_out_anew(
        self, catalogue: Catalogue, dsn: str
    ) -> None:
        catalogue.record_freshness(seen(1))
        catalogue.put_archive_snapshot(DEMO, taken(1), NOON)
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE wal_archive SET snapshot = '{\"version\": 9}'")
            connection.execute("UPDATE wal_freshness SET freshness = '{}'")

        assert (catalogue.freshness(DEMO), catalogue.archive_snapshot(DEMO)) == (None, None)

    def test_none_of_it_is_a_fact_of_the_repository(self, catalogue: Catalogue) -> None:
        before = catalogue.content()
        catalogue.record_freshness(seen(1))
        catalogue.put_archive_snapshot(DEMO, taken(1), NOON)
        catalogue.record_wal_event(progress(1), LATER)
        catalogue.settle_findings(DEMO, WAL_SCOPE, [BEHIND], NOON)

        catalogue.replace([], LATER)

        assert catalogue.content() == before
        assert catalogue.freshness(DEMO) == seen(1)
        assert len(catalogue.findings(DEMO)) == 1


class TestFindings:
    def test_a_finding_opens_once_and_closes_once(self, catalogue: Catalogue) -> None:
        first = catalogue.settle_findings(DEMO, WAL_SCOPE, [BEHIND, GAP], NOON)
        worse = Finding(BEHIND.code, BEHIND.object, NOON + MINUTE, "960 s behind")
        second = catalogue.settle_findings(DEMO, WAL_SCOPE, [worse], NOON + MINUTE)
        third = catalogue.settle_findings(DEMO, WAL_SCOPE, [], NOON + 2 * MINUTE)

        assert (first.opened, first.kept, first.closed) == ((BEHIND, GAP), (), ())
        assert [one.fact for one in second.kept] == ["960 s behind"]
        assert [one.since for one in second.kept] == [NOON]
        assert second.closed == (GAP,)
        assert third.closed == second.kept
        assert catalogue.findings(DEMO) == []
        history = catalogue.findings(DEMO, closed_since=NOON)
        assert [(one.finding.code, one.closed_at) for one in history] == [
            (FindingCode.GAP, NOON + MINUTE),
            (FindingCode.BEHIND, NOON + 2 * MINUTE),
        ]
        assert len(catalogue.findings(DEMO, closed_since=NOON + 2 * MINUTE)) == 1

    def test_one_that_comes_back_is_opened_again(self, catalogue: Catalogue) -> None:
        opened = [
            catalogue.settle_findings(DEMO, WAL_SCOPE, found, NOON + minute * MINUTE).opened
            for minute, found in enumerate([[GAP], [], [GAP]])
        ]
        assert opened == [(GAP,), (), (GAP,)]
        assert len(catalogue.findings(DEMO, closed_since=NOON)) == 2

    def test_another_scope_closes_nothing(self, catalogue: Catalogue) -> None:
        evidence = {"used": "9 GB", "budget": "10 GB"}
        full = Finding(FindingCode.STORAGE_NEARLY_FULL, "budget", NOON, "90 % used", evidence)
        catalogue.settle_findings(DEMO, WAL_SCOPE, [GAP], NOON)
        catalogue.settle_findings(DEMO, [FindingScope.FRESHNESS], [full], NOON)

        assert {one.finding.code for one in catalogue.findings()} == {GAP.code, full.code}
        assert catalogue.settle_findings(DEMO, WAL_SCOPE, [], NOON).closed == (GAP,)
        [kept] = catalogue.findings(DEMO)
        assert (kept.cluster, kept.finding, kept.finding.evidence) == (DEMO, full, evidence)

    def test_a_code_of_another_release_is_left_alone(self, catalogue: Catalogue, dsn: str) -> None:
        catalogue.settle_findings(DEMO, WAL_SCOPE, [GAP], NOON)
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE finding SET code = 'of-tomorrow'")

        assert catalogue.findings(DEMO) == []
        assert catalogue.settle_findings(DEMO, list(FindingScope), [], NOON).closed == ()

    def test_clusters_do_not_see_one_anothers(self, catalogue: Catalogue) -> None:
        catalogue.settle_findings(DEMO, WAL_SCOPE, [BEHIND], NOON)
        assert catalogue.settle_findings(OTHER, WAL_SCOPE, [BEHIND], NOON).opened == (BEHIND,)
        assert catalogue.settle_findings(OTHER, WAL_SCOPE, [], NOON).closed == (BEHIND,)
        assert [one.finding for one in catalogue.findings(DEMO)] == [BEHIND]

    def test_opening_closes_nothing(self, catalogue: Catalogue) -> None:
        catalogue.settle_findings(DEMO, WAL_SCOPE, [BEHIND], NOON)

        changes = catalogue.open_findings(DEMO, [GAP], NOON)

        assert (changes.opened, changes.closed) == ((GAP,), ())
        assert {one.finding for one in catalogue.findings(DEMO)} == {BEHIND, GAP}

    def test_one_that_was_opened_while_others_were_looking_stays_open(
        self, catalogue: Catalogue
    ) -> None:
        began = NOON
        catalogue.open_findings(DEMO, [GAP], NOON + MINUTE)

        assert catalogue.settle_findings(DEMO, WAL_SCOPE, [], began).closed == ()
        assert catalogue.settle_findings(DEMO, WAL_SCOPE, [], NOON + 2 * MINUTE).closed == (GAP,)

    def test_of_two_instances_at_once_the_second_waits_and_opens_nothing(
        self, catalogue: Catalogue, dsn: str
    ) -> None:
        with (
            psycopg.connect(dsn, row_factory=dict_row) as first,
            psycopg.connect(dsn, autocommit=True) as observer,
            ThreadPoolExecutor(1) as pool,
        ):
            finding_ledger.settle(first, DEMO, [BEHIND], NOON, close=WAL_SCOPE)
            second = pool.submit(catalogue.settle_findings, DEMO, WAL_SCOPE, [BEHIND, GAP], NOON)
            waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND "
            waits += "wait_event_type = 'Lock'"
            wait_until(lambda: observer.execute(waits).rowcount == 1, 20, "the second waits")
            first.commit()

            changes = second.result(20)
        assert (changes.opened, changes.kept) == ((GAP,), (BEHIND,))


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    made = SignedRepository(store)
    made.register()
    return made


def taken_in(catalogue: Catalogue, repository: SignedRepository, backup: Committed) -> Committed:
    fact = verify_header(repository.store, backup.ref, repository.pinned)
    catalogue.record(fact, NOON)
    return backup


class TestNewestBase:
    def test_it_is_the_newest_backup_that_was_not_found_damaged(
        self, catalogue: Catalogue, repository: SignedRepository
    ) -> None:
        assert catalogue.newest_base(DEMO) is None
        first = taken_in(catalogue, repository, repository.commit())
        hour = timedelta(hours=1)
        second = repository.commit(at=NOON + hour, previous=first)
        taken_in(catalogue, repository, second)

        # It brings its log along: what follows its end is what the archive must have.
        assert catalogue.newest_base(DEMO) == BackupBase(
            1, Lsn.parse("0/3000000"), NOON + hour, whole=True
        )

        damaged = repository.verify(second, "v1", passed=False)
        catalogue.record(read_report(repository.store, damaged, repository.pinned), NOON)
        base = catalogue.newest_base(DEMO)
        assert base is not None
        assert base.at == NOON

    def test_without_its_own_log_it_needs_the_archive_from_its_start(
        self, catalogue: Catalogue, repository: SignedRepository, dsn: str
    ) -> None:
        taken_in(catalogue, repository, repository.commit())
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE backup SET wal_included = false")

        assert catalogue.newest_base(DEMO) == BackupBase(
            1, Lsn.parse("0/2000028"), NOON.astimezone(UTC), whole=False
        )


def test_a_server_that_is_down_is_unavailable() -> None:
    down = PostgresCatalogue("host=127.0.0.1 port=1 user=x dbname=x")
    with pytest.raises(CatalogueUnavailable):
        down.record_wal_event(progress(1), datetime(2027, 1, 1, tzinfo=UTC))
