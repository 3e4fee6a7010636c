"""Expiry in the control plane: reports, rows that go with them, the finding of a refusal."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from functions.intake import take_in_backup, take_in_report
from functions.queue_job_event import take_in_event
from functions.timer_reconcile import reconcile
from functions.wal_watch import watch
from shared.catalogue.ports import Catalogue
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import rebuild
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.job import JobEventKind, JobVerb
from shared.domain.lsn import Lsn
from shared.jobs.messages import JOB_QUEUES, JobEvent
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.settings.policy import Retention
from tests.harness.aged_repository import CLUSTER, NAME, SEGMENT, AgedRepository, aged_directory
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import Clock, ControlPlane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import Committed

DAYS = 12
BOTH_CATALOGUES = True


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> AgedRepository:
    retention = Retention(full_days=5, incremental_days=2, wal_days=5)
    return aged_directory(tmp_path, DAYS, retention=retention)


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


@pytest.fixture
def plane(catalogue: Catalogue, site: AgedRepository) -> ControlPlane:
    queues = {name: MemoryQueue() for name in JOB_QUEUES}
    return ControlPlane(site.repository, catalogue, queues, Clock(site.now))


@pytest.fixture
def fulls(site: AgedRepository, plane: ControlPlane) -> list[Committed]:
    """Two that go, two that stay; all are in the catalogue."""
    made = [site.full(day) for day in (0, 2, 6, 11)]
    site.archive(range(DAYS))
    reconcile(plane.services)
    return made


def labels(plane: ControlPlane) -> list[str]:
    return sorted(one.ref.label.text for one in plane.catalogue.backups(limit=99))


def names(backups: list[Committed]) -> list[str]:
    return [one.ref.label.text for one in backups]


def finished(site: AgedRepository, report: str) -> bytes:
    event = JobEvent(
        job_id=UUID(int=5, version=4),
        cluster=CLUSTER,
        verb=JobVerb.EXPIRE,
        kind=JobEventKind.FINISHED,
        attempt=1,
        at=site.now,
        succeeded=True,
        result=report,
    )
    return event.model_dump_json().encode()


def test_rows_of_deleted_backups_go_when_their_run_is_finished(
    site: AgedRepository, plane: ControlPlane, fulls: list[Committed]
) -> None:
    outcome = site.expire(5)

    for _ in range(2):
        take_in_event(plane.services, finished(site, outcome.id))

    assert labels(plane) == names(fulls[2:])
    assert plane.catalogue.newest_expiry(NAME) == outcome.report
    assert layout.expiry_report(NAME, outcome.id) in plane.catalogue.known_blobs()


def test_i5_a_rebuild_finds_what_events_have_left(
    site: AgedRepository, plane: ControlPlane, server: CatalogueServer, fulls: list[Committed]
) -> None:
    take_in_event(plane.services, finished(site, site.expire(5).id))

    other = PostgresCatalogue(server.database())
    result = rebuild(other, site.store, site.repository.pinned, site.now)

    assert result.refused == ()
    assert other.content() == plane.catalogue.content()
    assert len(other.content()["backup"]) == len(fulls) - 2


def test_d07_a_report_whose_event_was_lost_is_taken_in_by_the_reconciler(
    site: AgedRepository, plane: ControlPlane, fulls: list[Committed]
) -> None:
    site.expire(5)

    reconcile(plane.services)

    assert labels(plane) == names(fulls[2:])
    assert plane.catalogue.set_aside_codes() == {}


def test_d04_the_news_of_a_backup_that_is_gone_already_makes_no_row(
    site: AgedRepository, plane: ControlPlane, fulls: list[Committed]
) -> None:
    take_in_event(plane.services, finished(site, site.expire(5).id))

    take_in_backup(plane.services, fulls[0].ref.document)
    assert labels(plane) == names(fulls[2:])

    site.store.delete(fulls[3].ref.document)
    with pytest.raises(BackupNotFound):  # nobody meant to delete it: the host tries again
        take_in_backup(plane.services, fulls[3].ref.document)


def test_a_row_with_another_digest_is_not_forgotten(
    plane: ControlPlane, fulls: list[Committed]
) -> None:
    plane.catalogue.forget({fulls[0].ref: "0" * 64, fulls[1].ref: fulls[1].digest})

    assert labels(plane) == names([fulls[0], *fulls[2:]])


def test_a_refusal_is_a_finding_until_a_run_succeeds(
    site: AgedRepository, plane: ControlPlane, fulls: list[Committed]
) -> None:
    site.store.delete(site.segment(11))
    site.archive([12])
    site.now += timedelta(minutes=5)
    refused = _refused(site, plane)
    site.archive([11])
    site.now += timedelta(minutes=5)
    done = site.expire(6)
    take_in_event(plane.services, finished(site, done.id))

    assert done.report.refused is None
    assert plane.catalogue.findings(NAME) == []
    take_in_report(plane.services, layout.expiry_report(NAME, refused))  # an old one comes again
    assert plane.catalogue.findings(NAME) == []


def test_what_expiry_leaves_for_a_held_backup_is_no_gap_in_the_wal(
    site: AgedRepository, plane: ControlPlane, fulls: list[Committed]
) -> None:
    cluster = plane.services.settings.cluster[0]
    watch(plane.services, cluster)
    before = plane.catalogue.archive_snapshot(NAME)
    site.retention = site.retention.model_copy(update={"hold": (fulls[0].ref.label.text,)})
    take_in_event(plane.services, finished(site, site.expire(5).id))
    assert [site.segment(day) for day in (0, 6)] == site.blobs("wal")[:2]

    watch(plane.services, cluster)
    plane.clock.advance(minutes=5)
    watch(plane.services, cluster)

    snapshot = plane.catalogue.archive_snapshot(NAME)
    assert before is not None
    assert snapshot is not None
    [old], [new] = before.ranges, snapshot.ranges
    assert (old.start, new.start) == (Lsn(2 * SEGMENT), Lsn(8 * SEGMENT))
    assert (old.end, new.stored_bytes) == (new.end, old.stored_bytes // 2)
    codes = {one.finding.code for one in plane.catalogue.findings(NAME)}
    assert FindingCode.GAP not in codes


def _refused(site: AgedRepository, plane: ControlPlane) -> str:
    outcome = site.expire(5)
    assert outcome.report.refused is not None
    take_in_event(plane.services, finished(site, outcome.id))
    [found] = plane.catalogue.findings(NAME)
    assert found.finding.code is FindingCode.EXPIRE_REFUSED
    assert found.finding.scope is FindingScope.RETENTION
    assert "continuous WAL" in found.finding.fact
    assert found.finding.evidence == {"report": outcome.id}
    return outcome.id
