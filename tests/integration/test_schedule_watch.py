"""The schedule on a real catalogue: which job each tick becomes, and what is said when none is."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from functions.queue_job_event import take_in_event
from functions.schedule_watch import watch_schedule
from functions.timer_dispatch import dispatch, follow_settings
from functions.wiring import Services
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.cluster import cluster_name
from shared.domain.drill_target import DrillLevel
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.domain.job import JobEventKind, JobVerb
from shared.domain.restore_request import Person, RestoreRequest
from shared.jobs.messages import (
    BACKUP_QUEUE,
    EXPIRE_QUEUE,
    JOB_QUEUES,
    MAINTENANCE_QUEUE,
    RESTORE_QUEUE,
    AnyJob,
    AuditJob,
    BackupJob,
    DrillJob,
    JobEvent,
    MaintenanceJob,
    VerifyJob,
)
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.header_verification import verify_header
from shared.repository.layout import BackupRef
from shared.repository.reports import read_report
from shared.settings import ClusterSettings, Settings
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import NOON, SignedRepository

pytestmark = [pytest.mark.integration]
# A Sunday; the plane's clock starts at its noon.
HOUR = timedelta(hours=1)
DEMO = cluster_name("demo")


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def plane(server: CatalogueServer, tmp_path: Path) -> ControlPlane:
    store = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    repository = SignedRepository(store)
    repository.register()
    queues = {name: MemoryQueue() for name in JOB_QUEUES}
    made = ControlPlane(repository, PostgresCatalogue(server.database()), queues)
    made.schedule = {}
    return made


def services(plane: ControlPlane, *, fleet: Any = None, **cluster: Any) -> Services:
    """With the one cluster's settings changed."""
    made = plane.services
    values = made.settings.cluster[0].model_dump() | cluster
    settings = made.settings.model_copy(
        update={"cluster": (ClusterSettings.model_validate(values),)}
    )
    if fleet is not None:
        settings = settings.model_copy(update={"fleet": settings.fleet.model_copy(update=fleet)})
    return replace(made, settings=settings)


def catalogued(plane: ControlPlane, *, verified: bool = True) -> BackupRef:
    backup = plane.repository.commit()
    store, pinned = plane.repository.store, plane.repository.pinned
    plane.catalogue.record(verify_header(store, backup.ref, pinned), NOON)
    if verified:
        name = plane.repository.verify(backup, "v1")
        plane.catalogue.record(read_report(store, name, pinned), NOON)
    return backup.ref


def heard(plane: ControlPlane, job_id: UUID, verb: JobVerb, kind: JobEventKind) -> None:
    end = {"succeeded": True} if kind is JobEventKind.FINISHED else {}
    event = JobEvent(
        job_id=job_id, cluster="demo", verb=verb, kind=kind, attempt=1, at=plane.clock(), **end
    )
    take_in_event(plane.services, event.model_dump_json().encode())


def found(plane: ControlPlane) -> list[tuple[str, str]]:
    return sorted(
        (one.finding.code.value, one.finding.object)
        for one in plane.catalogue.findings()
        if one.finding.scope is FindingScope.SCHEDULE
    )


def run_at(plane: ControlPlane, made: Services, at: datetime) -> None:
    """The agenda is made at the plane's present; the tick comes later."""
    follow_settings(made)
    plane.clock.now = at
    dispatch(made)


class TestJobs:
    def test_every_kind_becomes_its_job(self, plane: ControlPlane) -> None:
        ref = catalogued(plane)
        daily = {
            "verify": "0 13 * * *",
            "drill_quick": "0 14 * * *",
            "drill_extended": "0 15 * * *",
            "drill_disaster": "0 16 * * *",
            "expire": "0 17 * * *",
            "maintenance": "0 18 * * *",
            "audit": "0 19 * * *",
        }
        plane.schedule = daily
        made = services(plane, maintenance={"dsn": "host=a user=b", "minutes": 30})
        follow_settings(made)
        jobs = list[AnyJob]()
        for hour in range(13, 20):
            plane.clock.now = NOON.replace(hour=hour, minute=0, second=20)
            dispatch(made)
            for job in plane.take_jobs(RESTORE_QUEUE):
                jobs.append(job)
                heard(plane, job.job_id, job.verb, JobEventKind.FINISHED)
        verify, quick, extended, disaster, audit = jobs
        [expire] = plane.take_jobs(EXPIRE_QUEUE)
        [maintenance] = plane.take_jobs(MAINTENANCE_QUEUE)

        assert isinstance(verify, VerifyJob)
        assert (verify.label, verify.whole_chain) == (ref.label.text, True)
        drills = [(one.level, one.target, one.label) for one in (quick, extended, disaster)
                  if isinstance(one, DrillJob)]  # fmt: skip
        assert drills == [
            (DrillLevel.QUICK, "latest", ref.label.text),
            (DrillLevel.EXTENDED, "random", ref.label.text),
            (DrillLevel.DISASTER, "latest", ref.label.text),
        ]
        assert expire.verb is JobVerb.EXPIRE
        assert isinstance(maintenance, MaintenanceJob)
        due = NOON.replace(hour=18, minute=0, second=0, microsecond=0)
        assert (maintenance.due, maintenance.until) == (due, due + timedelta(minutes=30))
        assert isinstance(audit, AuditJob)
        tick = due.replace(hour=19)
        assert (audit.since, audit.until) == (tick - timedelta(days=1), tick)

    def test_without_a_backup_nothing_is_verified_and_without_a_verified_one_nothing_drilled(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"verify": "0 13 * * *", "drill_quick": "0 13 * * *"}
        made = plane.services
        run_at(plane, made, NOON + HOUR)
        assert plane.take_jobs(RESTORE_QUEUE) == []
        catalogued(plane, verified=False)
        plane.clock.advance(days=1)
        dispatch(made)
        assert [job.verb for job in plane.take_jobs(RESTORE_QUEUE)] == [JobVerb.VERIFY]

    def test_maintenance_that_comes_after_its_window_waits_for_the_next(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"maintenance": "0 13 * * *"}
        made = services(plane, maintenance={"dsn": "host=a user=b", "minutes": 30})
        run_at(plane, made, NOON + 1.6 * HOUR)
        assert plane.take_jobs(MAINTENANCE_QUEUE) == []
        plane.clock.now = (NOON + timedelta(days=1, hours=1)).replace(minute=0, second=5)
        dispatch(made)
        assert len(plane.take_jobs(MAINTENANCE_QUEUE)) == 1

    def test_nothing_expires_while_the_guard_sees_a_parent_in_danger(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"expire": "0 13 * * *"}
        danger = Finding(FindingCode.LIFECYCLE_WOULD_DELETE_PARENT, "rule", NOON, "a rule")
        plane.catalogue.open_findings(DEMO, [danger], NOON)
        made = plane.services
        run_at(plane, made, NOON + HOUR)
        assert plane.take_jobs(EXPIRE_QUEUE) == []
        [refused] = (one.finding for one in plane.catalogue.findings(DEMO)
                     if one.finding.scope is FindingScope.RETENTION)  # fmt: skip
        assert refused.code is FindingCode.EXPIRE_REFUSED
        assert FindingCode.LIFECYCLE_WOULD_DELETE_PARENT.value in refused.fact
        plane.catalogue.settle_findings(DEMO, [FindingScope.GUARD], [], NOON)
        plane.clock.advance(days=1)
        dispatch(made)
        assert len(plane.take_jobs(EXPIRE_QUEUE)) == 1

    def test_nothing_expires_while_a_restore_waits_for_its_approval(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"expire": "0 13 * * *"}
        request = RestoreRequest(
            UUID(int=5), DEMO, cluster_name("target"), None, "latest", Person("a", "Ann"),
            NOON, NOON + 3 * HOUR,
        )  # fmt: skip
        plane.catalogue.ask_restore(request)
        made = plane.services
        run_at(plane, made, NOON + HOUR)
        assert plane.take_jobs(EXPIRE_QUEUE) == []
        plane.clock.advance(days=1)
        dispatch(made)
        assert len(plane.take_jobs(EXPIRE_QUEUE)) == 1

    def test_what_is_over_a_limit_starts_as_soon_as_there_is_room(
        self, plane: ControlPlane
    ) -> None:
        catalogued(plane)
        plane.schedule = {"full": "0 13 * * *", "verify": "0 13 * * *"}
        made = services(plane, fleet={"per_account": 1})
        run_at(plane, made, NOON + HOUR)
        [verify] = plane.take_jobs(RESTORE_QUEUE)
        assert plane.take_jobs(BACKUP_QUEUE) == []
        heard(plane, verify.job_id, JobVerb.VERIFY, JobEventKind.FINISHED)
        plane.clock.advance(minutes=1)
        dispatch(made)
        [backup] = plane.take_jobs(BACKUP_QUEUE)
        assert isinstance(backup, BackupJob)
        assert backup.due == NOON.replace(hour=13, minute=0, second=0, microsecond=0)

    def test_s12_a_changed_schedule_holds_for_the_next_tick(self, plane: ControlPlane) -> None:
        plane.schedule = {"expire": "0 13 * * *"}
        follow_settings(plane.services)
        plane.schedule = {"expire": "30 12 * * *"}
        plane.clock.now = NOON
        dispatch(plane.services)
        plane.clock.now = NOON + HOUR / 2
        dispatch(plane.services)
        [job] = plane.take_jobs(EXPIRE_QUEUE)
        plane.clock.now = NOON + HOUR
        dispatch(plane.services)
        assert plane.take_jobs(EXPIRE_QUEUE) == []
        assert [entry.cron for entry in plane.catalogue.agenda()] == ["30 12 * * *"]
        assert job.model_dump()["due"].minute == 30


class TestFindings:
    def test_a_run_that_nobody_starts_is_told_within_a_quarter_of_an_hour_and_closes(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"expire": "0 13 * * *"}
        follow_settings(plane.services)
        plane.clock.now = NOON.replace(hour=13, minute=14)
        watch_schedule(plane.services)
        assert found(plane) == []
        plane.clock.advance(minutes=2)
        watch_schedule(plane.services)
        watch_schedule(plane.services)
        assert found(plane) == [("run-missed", "expire")]
        dispatch(plane.services)
        watch_schedule(plane.services)
        assert found(plane) == []

    def test_a_job_that_no_worker_takes_is_told_as_well(self, plane: ControlPlane) -> None:
        plane.schedule = {"full": "0 3 * * *"}
        dispatch(plane.services)
        plane.clock.advance(minutes=16)
        watch_schedule(plane.services)
        assert found(plane) == [("run-missed", "backup job")]
        [job] = plane.take_jobs(BACKUP_QUEUE)
        heard(plane, job.job_id, JobVerb.BACKUP, JobEventKind.STARTED)
        watch_schedule(plane.services)
        assert found(plane) == []

    def test_s03_the_third_skip_in_a_row_is_told_and_a_long_run_is_not_killed(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"full": "0 * * * *"}
        dispatch(plane.services)
        [job] = plane.take_jobs(BACKUP_QUEUE)
        for number in range(1, 7):
            plane.clock.now = NOON + number * HOUR
            heard(plane, job.job_id, JobVerb.BACKUP, JobEventKind.PROGRESS)
            dispatch(plane.services)
            watch_schedule(plane.services)
            if number == 2:
                assert found(plane) == []
            if number == 3:
                assert found(plane) == [("run-skipped", "full")]
        assert found(plane) == [("run-skipped", "full"), ("window-overrun", "backup")]
        assert plane.take_jobs(BACKUP_QUEUE) == []

        heard(plane, job.job_id, JobVerb.BACKUP, JobEventKind.FINISHED)
        plane.clock.advance(hours=1)
        dispatch(plane.services)
        watch_schedule(plane.services)
        assert found(plane) == []
        assert len(plane.take_jobs(BACKUP_QUEUE)) == 1

    def test_a_cluster_that_the_settings_forget_is_not_nagged_about(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"expire": "0 13 * * *"}
        follow_settings(plane.services)
        plane.clock.advance(hours=2)
        watch_schedule(plane.services)
        assert found(plane) != []
        nobody: Settings = plane.services.settings.model_copy(update={"cluster": ()})
        watch_schedule(replace(plane.services, settings=nobody))
        assert found(plane) == []
        assert plane.catalogue.findings(REPOSITORY) == []


def test_an_extended_drill_restores_an_older_backup_that_its_id_draws(plane: ControlPlane) -> None:
    backups = [plane.repository.commit(at=NOON - timedelta(days=day)) for day in (14, 7, 0)]
    store, pinned = plane.repository.store, plane.repository.pinned
    for number, backup in enumerate(backups):
        plane.catalogue.record(verify_header(store, backup.ref, pinned), NOON)
        # Of the oldest, the verification found damage.
        name = plane.repository.verify(backup, f"v{number}", passed=number > 0)
        plane.catalogue.record(read_report(store, name, pinned), NOON)
    plane.schedule = {"drill_extended": "0 16 * * *"}
    run_at(plane, plane.services, NOON.replace(hour=16, minute=0, second=20))
    [job] = plane.take_jobs(RESTORE_QUEUE)
    assert isinstance(job, DrillJob)
    assert (job.level, job.target) == (DrillLevel.EXTENDED, "random")
    assert job.label == backups[1].ref.label.text
