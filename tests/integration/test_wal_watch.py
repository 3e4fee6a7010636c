"""The watch over WAL: a real catalogue, an archive of real blobs, reports that come or do not."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from functions.intake import take_in_backup
from functions.queue_wal_event import take_in_wal_event
from functions.timer_freshness import look_at_all
from functions.wiring import Services
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.finding_rules import FindingScope
from shared.domain.freshness import WalFreshness
from shared.domain.lsn import Lsn
from shared.domain.wal_findings import CONFLICT_STANDS, GAP_SETTLES
from shared.domain.wal_segment import WalFileName, WalPiece, segment_name
from shared.errors import CatalogueUnavailable, MessageInvalid, StorageUnavailable
from shared.jobs.wal_events import SlotStatus, WalConflictSeen, WalGapSeen, WalProgress
from shared.repository import layout
from shared.repository.blob_store import BlobInfo
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.wal_metadata import WalMetadata
from shared.settings import ClusterSettings
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.http_caller import calling
from tests.harness.signed_repository import KID, NOON, SignedRepository
from tests.harness.worker_services import WatchedStore

pytestmark = pytest.mark.integration

DEMO = cluster_name("demo")
SIZE = 16 << 20
SECOND = timedelta(seconds=1)
SLOT = SlotStatus(name="pgkeep", active=True, wal_status="reserved", keep_bytes=1 << 30)
DOWN = PostgresCatalogue("host=127.0.0.1 port=1 dbname=x")


@dataclass
class FlakyStore(WatchedStore):
    """Listings of these folders fail."""

    broken: set[str] = field(default_factory=set)

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        self._check(prefix)
        return super().list(container, prefix, start=start, page=page)

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        self._check(folder)
        return super().list_folder(container, folder)

    def _check(self, prefix: str) -> None:
        if prefix.partition("/")[0] in self.broken:
            raise StorageUnavailable(f"listing of {prefix} failed")


@dataclass
class Watch:
    """The control plane of a test, the archive below it, and what was logged."""

    plane: ControlPlane
    store: FlakyStore
    log: pytest.LogCaptureFixture

    @property
    def services(self) -> Services:
        return self.plane.services

    @property
    def now(self) -> datetime:
        return self.plane.clock.now

    def archive(
        self, *segments: int, timeline: int = 1, cluster: ClusterName = DEMO, ago: float = 60
    ) -> None:
        """Whole segments by number, whose commits are `ago` seconds old."""
        at = self.now - ago * SECOND
        for number in segments:
            name = WalFileName.parse(segment_name(timeline, Lsn(number * SIZE), SIZE))
            told = WalMetadata(KID, sha256(b"").hexdigest(), SIZE, at, at)
            blob = layout.wal_blob(cluster, name)
            self.store.create(blob, b"sealed", metadata=told.to_blob())

    def report(self, segment: float, **more: Any) -> None:
        """A receiver of the cluster says where the server is now."""
        made = WalProgress(
            cluster="demo",
            at=self.now,
            writer="receive",
            host="db1/1",
            timeline=1,
            server_lsn=Lsn(int(segment * SIZE)),
            slot=SLOT,
        )
        self.take_in(made.model_copy(update=more))

    def take_in(self, event: WalProgress | WalConflictSeen | WalGapSeen) -> None:
        take_in_wal_event(self.services, event.model_dump_json().encode())

    def look(self, *, after: float = 0) -> WalFreshness:
        self.plane.clock.advance(seconds=after)
        look_at_all(self.services)
        found = self.plane.catalogue.freshness(DEMO)
        assert found is not None
        return found

    def open(self) -> list[str]:
        found = self.plane.catalogue.findings(DEMO)
        of_wal = (one.finding for one in found if one.finding.scope is FindingScope.WAL)
        return sorted(finding.code.value for finding in of_wal)

    def told(self, event: str) -> list[str]:
        """Codes that were logged with `event`, in order; of findings, those about WAL."""
        fields = [record.fields for record in self.log.records if record.message == event]  # type: ignore[attr-defined]
        codes = [str(one["code"]) for one in fields]
        return [code for code in codes if "finding" not in event or code.startswith("wal-")]

    def shown(self, **params: str) -> tuple[int, Any]:
        with TemporaryDirectory() as folder, calling(self.plane, Path(folder)) as web:
            return web.get("/api/wal", **params)


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def watch(server: CatalogueServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Watch:
    directory = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        directory.create_container(container)
    store = FlakyStore(directory)
    repository = SignedRepository(store)
    repository.register()
    caplog.set_level(logging.INFO, "pgkeep")
    plane = ControlPlane(repository, PostgresCatalogue(server.database()), {})
    return Watch(plane, store, caplog)


def conflict(at: datetime, name: str = "000000010000000000000007") -> WalConflictSeen:
    return WalConflictSeen(
        cluster="demo",
        at=at,
        writer="agent",
        host="db2/1",
        name=name,
        stored_sha256="a" * 64,
        offered_sha256="b" * 64,
    )


def gap(at: datetime, start: int, end: int) -> WalGapSeen:
    return WalGapSeen(
        cluster="demo",
        at=at,
        writer="receive",
        host="db1/1",
        timeline=1,
        from_lsn=Lsn(start * SIZE),
        to_lsn=Lsn(end * SIZE),
    )


class TestLag:
    def test_an_idle_database_is_not_behind_while_its_writer_reports(self, watch: Watch) -> None:
        watch.archive(0, 1, 2)
        for _ in range(4):
            watch.report(2.5)
            assert watch.look(after=300).lag_seconds == 300

        assert watch.look().through_lsn == Lsn(3 * SIZE)
        assert watch.open() == []
        assert watch.told("finding-opened") == []

    def test_a_silent_writer_opens_two_findings_once_and_its_return_closes_them(
        self, watch: Watch
    ) -> None:
        watch.archive(0, 1, 2)
        watch.report(2.5)
        watch.look(after=900)
        assert watch.open() == []

        for _ in range(3):
            watch.look(after=300)
        assert watch.told("finding-opened") == ["wal-behind", "wal-unreported"]
        assert watch.open() == ["wal-behind", "wal-unreported"]

        watch.report(2.9)
        watch.look(after=1)
        assert watch.open() == []
        assert sorted(watch.told("finding-closed")) == ["wal-behind", "wal-unreported"]

    def test_a_writer_that_reports_and_cannot_store_is_behind(self, watch: Watch) -> None:
        watch.archive(0, 1, 2, ago=0)
        for minute in range(20):
            watch.plane.clock.advance(minutes=1)
            watch.report(3 + minute / 4)
        found = watch.look()

        assert found.lag_seconds == 1200
        assert found.unarchived_bytes == 19 * SIZE // 4
        assert watch.open() == ["wal-behind"]
        watch.archive(*range(3, 8), ago=0)
        assert watch.look(after=1).lag_seconds == 1
        assert watch.open() == []

    def test_w19_a_segment_ahead_of_a_missing_one_does_not_count_until_it_comes(
        self, watch: Watch
    ) -> None:
        watch.archive(5, 6, ago=600)
        watch.archive(8, ago=0)
        watch.report(8.5)
        found = watch.look()
        assert (found.through_lsn, found.lag_seconds) == (Lsn(7 * SIZE), 600)
        assert watch.open() == []

        watch.archive(7, ago=0)
        found = watch.look(after=1)
        assert (found.through_lsn, found.lag_seconds, found.gaps) == (Lsn(9 * SIZE), 1, ())

    def test_the_newest_backup_says_from_where_on_log_counts(self, watch: Watch) -> None:
        """It ends at 0/3000000, behind the hole, and brings its own log along."""
        backup = watch.plane.repository.commit()
        watch.archive(0, 1)
        watch.archive(3, 4)
        watch.report(4.5)
        assert watch.look(after=1).through_lsn == Lsn(2 * SIZE)

        watch.plane.queues = _Queues()
        take_in_backup(watch.services, backup.ref.document)

        found = watch.look(after=1)
        assert (found.through_lsn, found.protected_at) == (Lsn(5 * SIZE), NOON)

    def test_pieces_count_although_no_whole_segment_tells_the_size(self, watch: Watch) -> None:
        watch.plane.repository.commit()
        name = WalFileName.parse(segment_name(1, Lsn(3 * SIZE), SIZE))
        for start, stop in ((0, 4096), (4096, 8192)):
            told = WalMetadata(KID, sha256(b"").hexdigest(), stop - start)
            piece = WalPiece.of(name, start, stop)
            blob = layout.wal_blob(DEMO, piece)
            watch.store.create(blob, b"sealed", metadata=told.to_blob())
        watch.report(3 + 8192 / SIZE)

        found = watch.look(after=5)
        assert (found.through_lsn, found.lag_seconds) == (Lsn(3 * SIZE + 8192), 5)

    def test_a_cluster_without_wal_has_no_findings(self, watch: Watch) -> None:
        watch.plane.repository.commit()
        watch.look(after=86400)
        assert watch.look(after=86400).in_use is False
        assert watch.open() == []


class _Queues(dict[str, Any]):
    """Whatever is sent is lost."""

    def __missing__(self, name: str) -> Any:
        return self

    def send(self, body: str) -> None:
        json.loads(body)


class TestGaps:
    def test_w03_a_gap_is_found_once_it_has_settled_and_w04_heals(self, watch: Watch) -> None:
        watch.archive(4, 5)
        watch.archive(8, 9)
        watch.look()
        assert watch.open() == []

        watch.look(after=GAP_SETTLES.total_seconds())
        [one] = watch.look(after=GAP_SETTLES.total_seconds()).gaps
        assert watch.told("finding-opened") == ["wal-gap"]
        assert (one.start, one.end) == (Lsn(6 * SIZE), Lsn(8 * SIZE))

        watch.archive(6)
        watch.look(after=1)
        assert watch.told("finding-opened") == ["wal-gap"]
        assert "from 0/7000000 to 0/8000000" in watch.plane.catalogue.findings(DEMO)[0].finding.fact
        watch.archive(7)
        assert watch.look(after=1).gaps == ()
        assert watch.told("finding-closed") == ["wal-gap"]

    def test_d03_a_reported_gap_is_a_finding_at_once_however_often_it_is_delivered(
        self, watch: Watch
    ) -> None:
        watch.archive(4, 5)
        watch.look()
        for _ in range(10):
            watch.take_in(gap(watch.now, 6, 8))
        assert watch.told("finding-opened") == ["wal-gap"]

        watch.look(after=300)
        watch.archive(8)
        watch.look(after=300)
        assert watch.open() == ["wal-gap"]
        watch.archive(6, 7)
        watch.look(after=300)
        watch.take_in(gap(NOON, 6, 8))
        assert (watch.open(), watch.told("finding-opened")) == ([], ["wal-gap"])

    def test_a_lost_snapshot_is_read_anew(self, watch: Watch, server: CatalogueServer) -> None:
        watch.archive(0, 1, 2, 5, 6)
        before = watch.look()
        watch.plane.catalogue = PostgresCatalogue(server.database())

        assert watch.look() == before


class TestConflicts:
    def test_it_is_a_finding_at_once_and_closes_when_nobody_tries_any_more(
        self, watch: Watch
    ) -> None:
        watch.archive(6, 7)
        for second in (0, 60, 120):
            watch.take_in(conflict(NOON + second * SECOND))
        watch.take_in(conflict(NOON, "000000010000000000000006"))
        assert watch.told("finding-opened") == ["wal-duplicate-writer"]

        watch.report(7.5, at=NOON + CONFLICT_STANDS)
        watch.look(after=CONFLICT_STANDS.total_seconds())
        assert "wal-duplicate-writer" in watch.open()
        watch.look(after=121)
        assert "wal-duplicate-writer" not in watch.open()

    def test_d04_one_that_was_delivered_days_late_opens_nothing(self, watch: Watch) -> None:
        watch.plane.clock.advance(days=3)
        watch.take_in(conflict(NOON))
        assert watch.open() == []


class TestSlots:
    def test_a_lost_slot_and_one_without_a_limit_are_told(self, watch: Watch) -> None:
        watch.archive(0, 1)
        slot = SlotStatus(name="pgkeep", active=False, wal_status="lost")
        watch.report(1.5, slot=slot)
        watch.look(after=1)

        assert watch.open() == ["wal-slot-lost", "wal-slot-unlimited"]
        levels = {
            str(record.fields["code"]): record.levelname  # type: ignore[attr-defined]
            for record in watch.log.records
            if record.message == "finding-opened"
        }
        assert levels == {"wal-slot-lost": "ERROR", "wal-slot-unlimited": "WARNING"}


class TestTrouble:
    def test_d01_while_the_catalogue_is_down_a_report_is_raised_and_the_retry_succeeds(
        self, watch: Watch
    ) -> None:
        up, watch.plane.catalogue = watch.plane.catalogue, DOWN
        with pytest.raises(CatalogueUnavailable):
            watch.report(1)
        with pytest.raises(CatalogueUnavailable):
            look_at_all(watch.services)

        watch.plane.catalogue = up
        watch.report(1)
        assert watch.look(after=1).reported_at == NOON

    def test_d04_reports_in_any_order_end_with_the_newest(self, watch: Watch) -> None:
        watch.archive(0, 1, 2)
        watch.plane.clock.advance(minutes=5)
        for minute in (3, 1, 4, 2):
            watch.report(minute / 2, at=NOON + timedelta(minutes=minute))
        assert watch.look().protected_at == NOON + timedelta(minutes=4)

    def test_while_the_archive_cannot_be_read_the_lag_grows(self, watch: Watch) -> None:
        watch.archive(0, 1, ago=0)
        assert watch.look().lag_seconds == 0
        watch.archive(2, 3, ago=0)
        watch.store.broken = {"demo"}
        watch.report(3.5)

        found = watch.look(after=901)

        assert (found.through_lsn, found.lag_seconds) == (Lsn(2 * SIZE), 901)
        assert "wal-behind" in watch.open()
        assert watch.told("archive-unread") == ["storage-unavailable"]
        watch.store.broken = set()
        watch.report(3.5)
        assert watch.look(after=1).through_lsn == Lsn(4 * SIZE)
        assert watch.open() == []

    def test_one_clusters_failure_does_not_stop_the_others(self, watch: Watch) -> None:
        bad = ClusterSettings(name="a-bad-one", dsn="host=nowhere")
        watch.plane.repository.register("a-bad-one")
        watch.archive(0, 1)
        services = watch.services
        settings = services.settings.model_copy(
            update={"cluster": (bad, *services.settings.cluster)}
        )
        catalogue = _Refusing(services.catalogue, cluster_name("a-bad-one"))

        with pytest.raises(CatalogueUnavailable):
            look_at_all(replace(services, settings=settings, catalogue=catalogue))

        assert watch.told("freshness-unknown") == ["catalogue-unavailable"]
        found = watch.plane.catalogue.freshness(DEMO)
        assert found is not None
        assert found.through_lsn == Lsn(2 * SIZE)

    def test_an_event_of_a_cluster_that_no_settings_name_is_set_aside(self, watch: Watch) -> None:
        watch.report(1, cluster="stranger")

        assert watch.plane.catalogue.set_aside_codes() == {
            "pgkeep-wal-events/stranger/receive": "cluster-unknown"
        }
        assert watch.plane.catalogue.wal_events(cluster_name("stranger")) == []

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"x" * 70_000, b'{"version": 2}'])
    def test_d06_what_is_no_event_is_raised_for_the_poison_queue(
        self, watch: Watch, body: bytes
    ) -> None:
        with pytest.raises(MessageInvalid):
            take_in_wal_event(watch.services, body)


class _Refusing:
    """A catalogue that fails for one cluster."""

    def __init__(self, catalogue: Any, cluster: ClusterName) -> None:
        self._catalogue = catalogue
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalogue, name)

    def archive_snapshot(self, cluster: ClusterName) -> Any:
        if cluster == self._cluster:
            raise CatalogueUnavailable("the catalogue does not answer")
        return self._catalogue.archive_snapshot(cluster)


class TestHttp:
    def test_it_shows_freshness_as_of_now_writers_findings_and_ranges(self, watch: Watch) -> None:
        watch.archive(0, 1, 2)
        watch.archive(1, timeline=2)
        watch.report(2.5)
        watch.take_in(conflict(NOON))
        watch.look(after=10)
        watch.plane.clock.advance(seconds=30)

        status, body = watch.shown(cluster="demo")

        assert status == 200
        [shown] = body["clusters"]
        assert shown["cluster"] == "demo"
        fresh = shown["freshness"]
        assert (fresh["lag_seconds"], fresh["through_lsn"]) == (40, "0/3000000")
        assert datetime.fromisoformat(fresh["protected_at"]) == NOON
        assert [(one["writer"], one["server_lsn"]) for one in shown["writers"]] == [
            ("receive", "0/2800000")
        ]
        [finding] = shown["findings"]
        assert finding["code"] == "wal-duplicate-writer"
        assert "db2/1" in finding["fact"]
        assert finding["action"].endswith("wal-duplicate-writer.md.")
        assert [(one["timeline"], one["start"], one["end"]) for one in shown["ranges"]] == [
            (1, "0/0", "0/3000000"),
            (2, "0/1000000", "0/2000000"),
        ]
        assert watch.shown() == (status, body)

    def test_before_the_first_look_there_is_nothing_and_of_nobody_404(self, watch: Watch) -> None:
        [shown] = watch.shown()[1]["clusters"]
        assert (shown["freshness"], shown["ranges"]) == (None, [])
        status, problem = watch.shown(cluster="stranger")
        assert (status, problem["code"]) == (404, "cluster-unknown")
        assert watch.shown(clusters="demo")[0] == 400
