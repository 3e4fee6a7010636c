"""The hourly comparison: what the repository and the catalogue tell of one another is told once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from functions.catalogue_comparison import SLICES, slice_of
from functions.intake import take_in_backup, take_in_report
from functions.repository_watch import WITNESSES_COUNT
from functions.timer_reconcile import TAKES_IN_FOR, reconcile
from functions.wiring import Services
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import rebuild
from shared.domain.drill import DrillVerdict
from shared.domain.finding_rules import FindingScope
from shared.domain.findings import Finding
from shared.errors import StorageUnavailable
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.expiry_documents import Tombstone
from shared.repository.signatures import sign_document
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.light_plane import light_plane
from tests.harness.signed_repository import NOON, Committed, Ed25519Signer
from tests.harness.worker_services import WatchedStore

pytestmark = pytest.mark.integration

HOUR = timedelta(hours=1)


@dataclass
class AgedStore(WatchedStore):
    """All blobs are of noon, but those that are told otherwise; some cannot be read."""

    written: dict[BlobName, datetime] = field(default_factory=dict)
    broken: set[BlobName] = field(default_factory=set)
    unlisted: str | None = None
    on_read: Callable[[BlobName], None] = lambda _name: None

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        if container == self.unlisted:
            raise StorageUnavailable(f"listing of {container} failed")
        for blob in super().list(container, prefix, start=start, page=page):
            yield replace(blob, modified=self.written.get(blob.name, NOON))

    def read(self, name: BlobName, *, limit: int) -> bytes:
        self.on_read(name)
        if name in self.broken:
            raise StorageUnavailable(f"{name} cannot be read")
        return super().read(name, limit=limit)


@dataclass
class Repository:
    """The control plane of a test, and what of the scope is open and was told."""

    plane: ControlPlane
    store: AgedStore
    log: pytest.LogCaptureFixture
    dsn: str

    @property
    def services(self) -> Services:
        return replace(self.plane.services, store=self.store)

    def commit(self, hours: float = 0, **more: object) -> Committed:
        return self.plane.repository.commit(at=NOON + hours * HOUR, **more)  # type: ignore[arg-type]

    def known(self, hours: float = 0, **more: object) -> Committed:
        """A backup whose event came."""
        made = self.commit(hours, **more)
        take_in_backup(self.services, made.ref.document)
        return made

    def verified(self, backup: Committed, number: str) -> BlobName:
        name = self.plane.repository.verify(backup, number)
        take_in_report(self.services, name)
        return name

    def look(self, *, later: float = 0) -> list[tuple[str, str]]:
        """Codes and objects of all that is open after an hourly look, so many hours later."""
        self.plane.clock.advance(hours=later)
        reconcile(self.services)
        return [one.key for one in self.open()]

    def look_in_its_hour(self, name: BlobName) -> None:
        """At the document and its row."""
        while int(self.plane.clock.now.timestamp() // 3600) % SLICES != slice_of(name):
            self.plane.clock.advance(hours=1)
        self.look()

    def open(self) -> list[Finding]:
        found = (one.finding for one in self.plane.catalogue.findings())
        ours = (one for one in found if one.scope is FindingScope.RECONCILE)
        return sorted(ours, key=lambda one: one.key)

    def told(self, event: str) -> list[str]:
        fields = [record.fields for record in self.log.records if record.message == event]  # type: ignore[attr-defined]
        return [str(one["code"]) for one in fields]

    def rebuild(self) -> None:
        self.plane.clock.advance(seconds=1)
        rebuild(self.plane.catalogue, self.store, self.plane.repository.pinned, self.plane.clock())

    def tombstone(self, backup: Committed) -> None:
        made = Tombstone(
            cluster="demo",
            label=backup.ref.label.text,
            document_digest=backup.digest,
            run=UUID(int=3),
            created_at=NOON,
            bytes=1,
            reasons=("old",),
        )
        name = layout.tombstone(backup.ref, str(UUID(int=3)))
        self.store.create(name, sign_document(made, self.plane.repository.signer))

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement)


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def site(server: CatalogueServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Repository:
    caplog.set_level("INFO", "pgkeep")
    plane, dsn = light_plane(server, tmp_path), server.database()
    plane.catalogue = PostgresCatalogue(dsn)
    return Repository(plane, AgedStore(plane.repository.store), caplog, dsn)


def test_d07_a_lost_event_is_made_up_for_within_an_hour_and_told(site: Repository) -> None:
    lost, young = site.commit(), site.commit(hours=1)
    site.plane.repository.verify(lost, "v1")  # by hand: nobody was told
    site.store.written[young.ref.document] = NOON + 2 * HOUR

    assert site.look(later=2) == [("event-lost", "backups")]

    [finding] = site.open()
    assert finding.fact.startswith("1 backups had no event for over an hour")
    assert finding.evidence["oldest"] == str(lost.ref.document)
    assert site.plane.catalogue.backup(lost.ref).facts.verified
    assert len(site.plane.catalogue.backups(limit=9)) == 2
    assert site.look() == []
    assert (site.told("finding-opened"), site.told("finding-closed")) == (
        ["event-lost"],
        ["event-lost"],
    )


def test_a_document_that_nobody_believes_is_told_as_long_as_it_lies_there(site: Repository) -> None:
    forged = site.commit(signer=Ed25519Signer(key_id="stranger"))
    disbelieved = ("document-disbelieved", str(forged.ref.document))
    # It has no row and never gets one: that is no lost event.
    assert site.look(later=5) == [disbelieved]
    assert site.look(later=1) == [disbelieved]
    assert site.told("finding-opened") == ["document-disbelieved"]
    site.store.delete(forged.ref.document)
    assert site.look() == []


def test_a_row_without_its_document_is_told_unless_expire_has_meant_it(site: Repository) -> None:
    stolen, expired, kept = (site.known(hours) for hours in (0, 1, 2))
    assert site.look() == []
    site.tombstone(expired)
    for backup in (stolen, expired):
        site.store.delete(backup.ref.document)

    missing = ("document-missing", str(stolen.ref.document))
    assert site.look() == [missing]
    assert site.look(later=1) == [missing]
    assert site.told("finding-opened") == ["document-missing"]
    assert site.plane.catalogue.backup(kept.ref).ref == kept.ref


@pytest.mark.parametrize("place", ["newest", "in between"])
def test_d15_a_deleted_document_is_told_even_by_a_rebuilt_catalogue(
    site: Repository, place: str
) -> None:
    first = site.known()
    deleted = site.known(1, previous=first)
    if place == "newest":
        site.verified(deleted, "v1")
    else:
        site.known(2, previous=deleted)
    assert site.look() == []

    site.store.delete(deleted.ref.document)
    assert site.look() == [("document-missing", str(deleted.ref.document))]
    site.rebuild()
    assert site.look() == [("chain-broken", deleted.ref.label.text)]
    assert "is gone and never expired" in site.open()[0].fact

    site.tombstone(deleted)
    assert site.look() == []


def test_d15_what_went_long_ago_is_no_longer_told(site: Repository) -> None:
    deleted = site.known()
    site.verified(deleted, "v1")
    site.store.delete(deleted.ref.document)
    site.rebuild()
    assert site.look() == [("chain-broken", deleted.ref.label.text)]
    assert site.look(later=WITNESSES_COUNT / HOUR + 2) == []


TAMPERINGS = {
    "UPDATE backup SET suspect = true, stored_bytes = 7": "stored_bytes, suspect",
    "UPDATE verification SET passed = false": "passed",
    "UPDATE drill SET verdict = 'failed', report = report || '{\"x\": 1}'": "report, verdict",
    "UPDATE cluster SET system_identifier = '1'": "system_identifier",
}


def test_d12_rows_that_were_tampered_with_are_found_within_a_day_and_repaired_by_a_rebuild(
    site: Repository,
) -> None:
    backup = site.known()
    verification = site.verified(backup, "v1")
    drill = site.plane.repository.drill(backup, "d1", DrillVerdict.PROVEN)
    take_in_report(site.services, drill)
    identity = layout.cluster_document(backup.ref.cluster)
    documents = [backup.ref.document, verification, drill, identity]
    for name in documents:
        site.look_in_its_hour(name)
        assert site.open() == []

    for statement in TAMPERINGS:
        site.sql(statement)
    for _ in range(SLICES):
        site.look(later=1)

    found = {one.evidence["blob"]: set(one.evidence["columns"].split(", ")) for one in site.open()}
    assert found == {
        str(name): set(columns.split(", "))
        for name, columns in zip(documents, TAMPERINGS.values(), strict=True)
    }
    assert site.told("finding-opened") == ["catalogue-differs"] * len(TAMPERINGS)
    site.rebuild()
    assert site.look() == []


def test_d12_a_row_that_hides_under_another_name_is_made_again(site: Repository) -> None:
    backup = site.known()
    site.sql("UPDATE backup SET label = left(label, -6) || 'zzzzzz'")
    found = site.look()
    assert [code for code, _ in found] == ["document-missing"]
    assert site.plane.catalogue.backup(backup.ref).digest == backup.digest


def test_a_part_that_was_lost_later_shows_in_the_row(site: Repository) -> None:
    backup = site.known()
    site.store.delete(backup.ref.blob("base.pgdata.0000"))
    site.look_in_its_hour(backup.ref.document)
    assert [one.evidence["columns"] for one in site.open()] == ["findings"]


def test_s09_a_comparison_that_takes_too_long_is_cut_short_and_closes_nothing(
    site: Repository,
) -> None:
    backup = site.known()
    site.sql("UPDATE backup SET suspect = true")
    site.look_in_its_hour(backup.ref.document)
    before = site.open()
    assert len(before) == 1

    def hurried() -> datetime:
        site.plane.clock.advance(minutes=6)
        return site.plane.clock.now

    reconcile(replace(site.services, clock=hurried))

    assert "comparison-cut-short" in site.log.messages
    assert site.open() == before


def test_who_could_not_list_all_closes_nothing(site: Repository) -> None:
    backup = site.known()
    site.sql("UPDATE backup SET suspect = true")
    site.look_in_its_hour(backup.ref.document)
    before = site.open()
    assert len(before) == 1

    site.store.unlisted = "full"
    with pytest.raises(StorageUnavailable):
        site.look(later=1)

    assert site.open() == before


def test_s09_what_is_not_taken_in_in_time_is_taken_in_next_hour(site: Repository) -> None:
    for hours in range(5):
        site.commit(hours)
    took = TAKES_IN_FOR / 4

    def slow() -> datetime:
        site.plane.clock.now += took
        return site.plane.clock.now

    reconcile(replace(site.services, clock=slow))
    some = len(site.plane.catalogue.backups(limit=9))
    assert 0 < some < 5
    assert "reconcile-cut-short" in site.log.messages
    # All were seen to be late, and none is told to be missing.
    assert [one.code.value for one in site.open()] == []
    site.look()
    assert len(site.plane.catalogue.backups(limit=9)) == 5


def test_d01_one_document_that_cannot_be_read_now_does_not_keep_back_the_others(
    site: Repository,
) -> None:
    first, second = site.commit(), site.commit(1)
    site.store.broken = {first.ref.document}
    with pytest.raises(StorageUnavailable):
        site.look(later=3)
    assert site.plane.catalogue.backup(second.ref).ref == second.ref
    assert [one.key[0] for one in site.open()] == ["event-lost"]
    site.store.broken.clear()
    site.look()
    assert len(site.plane.catalogue.backups(limit=9)) == 2


def test_d13_a_rebuild_converges_with_what_arrives_while_it_reads(
    site: Repository, server: CatalogueServer
) -> None:
    first = site.known()
    site.plane.clock.advance(hours=1)
    arrived: list[Committed] = []

    def meanwhile(_name: BlobName) -> None:
        site.store.on_read = lambda _name: None
        site.plane.clock.advance(seconds=1)
        arrived.append(site.known(1, previous=first))
        site.verified(arrived[0], "v1")
        site.verified(first, "v2")

    site.store.on_read = meanwhile
    site.rebuild()
    site.look()

    anew = PostgresCatalogue(server.database())
    rebuild(anew, site.store, site.plane.repository.pinned, site.plane.clock())
    assert len(anew.backups(limit=9)) == 2
    assert site.plane.catalogue.content() == anew.content()
    assert site.open() == []
