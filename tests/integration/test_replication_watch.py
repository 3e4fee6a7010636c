"""The watch over the second region: a real catalogue, a repository, and a Last Sync Time."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from functions.http_backups import listed
from functions.intake import take_in_backup
from functions.replication_watch import watch_replication
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.findings import REPOSITORY
from shared.domain.replication import CopyState, GeoReplication, ReplicationState
from shared.domain.wal_segment import WalFileName
from shared.errors import StorageUnavailable
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.replication_status import ReplicationUnknown
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.light_plane import light_plane
from tests.harness.signed_repository import KID, NOON, Committed
from tests.harness.worker_services import WatchedStore

pytestmark = pytest.mark.integration

DEMO = cluster_name("demo")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SEGMENT = WalFileName.parse("000000010000000000000002")  # of the backups that are committed here


@dataclass
class Account:
    """A storage account with a secondary, as far as it tells; asks are counted."""

    seen: GeoReplication = field(
        default_factory=lambda: GeoReplication(ReplicationState.LIVE, NOON)
    )
    silent: bool = False
    asked: int = 0

    def read(self) -> GeoReplication:
        self.asked += 1
        if self.silent:
            raise ReplicationUnknown("nobody answers")
        return self.seen


@dataclass
class ListedStore(WatchedStore):
    """Counts listings, and tells of blobs that object replication could not copy."""

    failed: set[str] = field(default_factory=set)
    listings: list[str] = field(default_factory=list)
    broken: bool = False

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        if self.broken:
            raise StorageUnavailable("listing failed")
        self.listings.append(f"{container}/{prefix}")
        for blob in super().list(container, prefix, start=start, page=page):
            copied = CopyState.FAILED if str(blob.name) in self.failed else None
            yield replace(blob, copied=copied)


@dataclass
class Regions:
    """The control plane, and what can be made to happen to its account."""

    plane: ControlPlane
    account: Account
    store: ListedStore
    folder: Path
    log: pytest.LogCaptureFixture

    def commit(self, at: datetime, **changes: Any) -> Committed:
        """A backup that was begun then and is written, all of it, two minutes later."""
        backup = self.plane.repository.commit(at=at, **changes)
        for path in (self.folder / backup.ref.document.container).rglob("*"):
            if path.is_file() and backup.ref.label.text in path.parts:
                self.write_at(path, at + 2 * MINUTE)
        take_in_backup(self.plane.services, backup.ref.document)
        return backup

    def write_at(self, path: Path, when: datetime) -> None:
        os.utime(path, (when.timestamp(), when.timestamp()))

    def put(self, name: BlobName, when: datetime) -> None:
        """A blob that storage received then."""
        self.store.create(name, b"{}")
        self.write_at(self.folder / name.container / name.path, when)

    def watch(self, reached: datetime | None = None, **step: float) -> None:
        """Time goes on by `step`, the account says `reached`, and somebody looks."""
        self.plane.clock.advance(**step)
        if reached is not None:
            self.account.seen = GeoReplication(ReplicationState.LIVE, reached)
        watch_replication(self.plane.services)

    def safe_at(self, backup: Committed) -> datetime | None:
        return self.plane.catalogue.backup(backup.ref).facts.geo_safe_at

    def open(self, cluster: ClusterName) -> list[str]:
        return sorted(one.finding.code for one in self.plane.catalogue.findings(cluster))

    def evidence(self, cluster: ClusterName = DEMO) -> dict[str, str]:
        [one] = self.plane.catalogue.findings(cluster)
        return dict(one.finding.evidence)


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def regions(server: CatalogueServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Regions:
    caplog.set_level(logging.INFO, "pgkeep")
    plane = light_plane(server, tmp_path)
    account, folder = Account(), tmp_path / "repository"
    assert isinstance(plane.repository.store, DirectoryBlobStore)
    store = ListedStore(plane.repository.store)
    plane.repository = replace(plane.repository, store=store)
    plane.replication = account
    made = Regions(plane, account, store, folder, caplog)
    for name in (layout.cluster_document(DEMO), layout.key_record(DEMO, KID)):
        made.write_at(folder / name.container / name.path, NOON - 30 * HOUR)
    return made


def test_a_backup_is_geo_safe_when_last_sync_time_has_passed_all_of_it(regions: Regions) -> None:
    backup = regions.commit(NOON)
    written = NOON + 2 * MINUTE
    for reached in (NOON, written + MINUTE):
        regions.watch(reached, minutes=5)
        assert regions.safe_at(backup) is None
    regions.watch(written + MINUTE + timedelta(seconds=1), minutes=5)

    found_at = NOON + 15 * MINUTE
    assert regions.safe_at(backup) == found_at
    assert listed(regions.plane.catalogue.backup(backup.ref)).geo_safe_at == found_at
    assert (regions.open(DEMO), regions.open(REPOSITORY)) == ([], [])
    assert [r.message for r in regions.log.records].count("backup-geo-safe") == 1


@pytest.mark.parametrize(
    "late",
    [
        layout.key_record(DEMO, KID, 1),
        layout.wal_blob(DEMO, SEGMENT),
    ],
)
def test_trap44_a_backup_whose_wal_or_keys_came_later_is_not_geo_safe(
    regions: Regions, late: BlobName
) -> None:
    backup = regions.commit(NOON)
    regions.put(late, NOON + HOUR)
    regions.watch(NOON + HOUR, hours=1)
    assert regions.safe_at(backup) is None
    regions.watch(NOON + HOUR + 2 * MINUTE, minutes=5)
    assert regions.safe_at(backup) is not None


def test_a_backup_without_its_wal_or_a_part_is_never_geo_safe_and_soon_a_finding(
    regions: Regions,
) -> None:
    bare = regions.commit(NOON, wal_included=False)
    maimed = regions.commit(NOON + HOUR, omit=layout.INDEX)
    regions.watch(NOON + 20 * HOUR, hours=20)
    assert regions.open(DEMO) == []
    regions.watch(NOON + 25 * HOUR, hours=6)
    assert (regions.safe_at(bare), regions.safe_at(maimed)) == (None, None)
    assert regions.open(DEMO) == ["geo-overdue"]
    assert regions.evidence() == {
        "count": "2",
        "label": bare.ref.label.text,
        "missing": "wal from 0/2000028 to 0/3000000",
    }

    regions.put(layout.wal_blob(DEMO, SEGMENT), NOON)
    regions.watch(minutes=5)
    assert regions.safe_at(bare) is not None
    assert regions.evidence()["missing"] == str(maimed.ref.blob(layout.INDEX))


def test_an_incremental_waits_for_its_parent_and_both_become_safe_in_one_look(
    regions: Regions,
) -> None:
    full = regions.commit(NOON)
    child = regions.commit(NOON + HOUR, parent=full.link)
    part = full.ref.blob(layout.INDEX)
    regions.write_at(regions.folder / part.container / part.path, NOON + 3 * HOUR)
    regions.watch(NOON + 2 * HOUR, hours=2)
    assert (regions.safe_at(full), regions.safe_at(child)) == (None, None)
    regions.watch(NOON + 4 * HOUR, hours=2)
    assert regions.safe_at(full) == regions.safe_at(child) == NOON + 4 * HOUR


def test_only_what_is_pending_and_passed_is_looked_at(regions: Regions) -> None:
    regions.commit(NOON)
    regions.watch(NOON + HOUR, hours=1)
    regions.commit(NOON + HOUR)
    regions.store.listings.clear()
    regions.watch(NOON + HOUR, minutes=5)
    assert regions.store.listings == []
    assert regions.account.asked == 2


def test_a_secondary_that_lags_is_one_finding_that_closes(regions: Regions) -> None:
    regions.watch(NOON - 16 * MINUTE)
    assert regions.open(REPOSITORY) == ["geo-behind"]
    assert regions.evidence(REPOSITORY)["minutes"] == "16"
    regions.watch(NOON - 20 * MINUTE, minutes=5)  # an older answer is not believed
    assert regions.evidence(REPOSITORY)["minutes"] == "21"
    regions.watch(NOON, minutes=5)
    assert regions.open(REPOSITORY) == []


def test_while_nobody_answers_the_last_sync_time_that_is_known_holds(regions: Regions) -> None:
    regions.watch(NOON + HOUR, hours=1)
    regions.account.silent = True
    backup = regions.commit(NOON)
    regions.watch(minutes=10)
    assert (regions.safe_at(backup) is not None, regions.open(REPOSITORY)) == (True, [])
    regions.watch(minutes=10)
    assert regions.open(REPOSITORY) == ["geo-behind"]
    assert regions.evidence(REPOSITORY)["state"] == "unknown"


def test_after_a_failover_the_new_secondary_holds_nothing_until_it_is_filled(
    regions: Regions,
) -> None:
    backup = regions.commit(NOON)
    regions.watch(NOON + HOUR, hours=1)
    assert regions.safe_at(backup) is not None
    regions.account.seen = GeoReplication(ReplicationState.BOOTSTRAP)
    regions.watch(hours=1)
    assert regions.safe_at(backup) is None
    assert regions.open(REPOSITORY) == ["geo-behind"]
    regions.watch(NOON + 2 * HOUR, minutes=5)
    assert (regions.safe_at(backup) is not None, regions.open(REPOSITORY)) == (True, [])


def test_a_copy_that_object_replication_failed_to_make_is_told_until_it_is_made(
    regions: Regions,
) -> None:
    backup = regions.commit(NOON)
    part = str(backup.ref.blob(layout.INDEX))
    regions.store.failed.add(part)
    for _ in range(2):
        regions.watch(NOON + HOUR, minutes=30)
        assert regions.open(DEMO) == ["object-replication-failed"]
    assert regions.evidence() == {"label": backup.ref.label.text, "blobs": part, "count": "1"}
    regions.store.failed.clear()
    regions.watch(minutes=5)
    assert (regions.safe_at(backup) is not None, regions.open(DEMO)) == (True, [])


def test_a_repository_that_cannot_be_read_raises_and_leaves_findings_alone(
    regions: Regions,
) -> None:
    backup = regions.commit(NOON, wal_included=False)
    regions.watch(NOON + 25 * HOUR, hours=25)
    regions.store.broken = True
    with pytest.raises(StorageUnavailable):
        regions.watch(minutes=5)
    assert (regions.open(DEMO), regions.safe_at(backup)) == (["geo-overdue"], None)


def test_a_document_that_is_gone_or_not_believed_is_not_geo_safe(regions: Regions) -> None:
    backup = regions.commit(NOON)
    name = backup.ref.document
    path = regions.folder / name.container / name.path
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"counter":1', b'"counter":9'))
    regions.write_at(path, NOON)
    regions.watch(NOON + 25 * HOUR, hours=25)
    assert regions.safe_at(backup) is None
    assert regions.evidence()["missing"] == f"{name}: signature-invalid"


def test_without_a_secondary_nobody_looks_and_nothing_is_reported(regions: Regions) -> None:
    regions.commit(NOON)
    regions.plane.replication = None
    regions.watch(hours=30)
    assert (regions.open(DEMO), regions.open(REPOSITORY)) == ([], [])
    assert "replication-seen" not in [record.message for record in regions.log.records]
