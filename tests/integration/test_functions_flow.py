"""The control plane with real storage, real queues (Azurite) and a real catalogue (PostgreSQL)."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from uuid import UUID

import azure.functions as func
import pytest

from functions.blob_backup_committed import blob_backup_committed
from functions.intake import take_in_backup, take_in_report
from functions.queue_job_event import take_in_event
from functions.timer_dispatch import dispatch
from functions.timer_reconcile import VERIFIED_WITHIN, reconcile
from functions.wiring import Services
from local.azurite import Azurite, EmulatedAccount
from shared.catalogue.job_ledger import CLAIM_LAPSES
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import rebuild
from shared.domain.drill import DrillVerdict
from shared.domain.job import JobEventKind, JobState, JobVerb
from shared.errors import BlobNotFound, CatalogueUnavailable, MessageInvalid, StorageUnavailable
from shared.jobs.azure_queue import open_queue
from shared.jobs.messages import BACKUP_QUEUE, JOB_QUEUES, RESTORE_QUEUE, JobEvent, VerifyJob
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.backups import BackupNotFound
from shared.repository.blob_store import BlobName
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import (
    NOON,
    Committed,
    Ed25519Signer,
    SignedRepository,
    backup_document,
)

pytestmark = pytest.mark.integration

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
ACCOUNTS = {f"account{number}": KEY for number in range(60)}


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture(scope="module")
def accounts() -> Iterator[Iterator[EmulatedAccount]]:
    """One storage account after the other: each test has its own."""
    with Azurite(None, accounts=ACCOUNTS) as azurite:
        yield (azurite.account(f"account{number}") for number in count())


@pytest.fixture
def plane(server: CatalogueServer, accounts: Iterator[EmulatedAccount]) -> Iterator[ControlPlane]:
    account = next(accounts)
    store = open_blob_store(account.blob_url, account.credential)
    queues = {name: open_queue(account.queue_url, name, account.credential) for name in JOB_QUEUES}
    for container in layout.CONTAINERS:
        store.create_container(container)
    for queue in queues.values():
        queue.create_if_missing()
    repository = SignedRepository(store)
    repository.register()
    yield ControlPlane(repository, PostgresCatalogue(server.database()), queues)
    store.close()
    for queue in queues.values():
        queue.close()


@pytest.fixture
def services(plane: ControlPlane) -> Services:
    return plane.services


def finished(verb: JobVerb, result: str, **more: object) -> bytes:
    event = JobEvent(
        job_id=UUID(int=5),
        cluster="demo",
        verb=verb,
        kind=JobEventKind.FINISHED,
        attempt=1,
        at=NOON,
        succeeded=True,
        result=result,
    )
    return event.model_copy(update=more).model_dump_json().encode()


def labels(services: Services) -> list[str]:
    return [backup.ref.label.text for backup in services.catalogue.backups(limit=100)]


class TestCommittedBackups:
    def test_an_event_makes_a_row_and_one_verification_job(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()

        take_in_backup(plane.services, backup.ref.document)

        [row] = plane.catalogue.backups(limit=9)
        assert (row.ref, row.digest, row.findings) == (backup.ref, backup.digest, ())
        assert row.facts.verified_at is None
        [job] = plane.take_jobs(RESTORE_QUEUE)
        assert isinstance(job, VerifyJob)
        assert (job.label, job.document_digest) == (backup.ref.label.text, backup.digest)

    def test_the_trigger_takes_only_the_name_from_the_event(
        self, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backup = plane.repository.commit()
        monkeypatch.setattr("functions.blob_backup_committed.services", lambda: plane.services)

        blob_backup_committed(func.blob.InputStream(data=b"{}", name=str(backup.ref.document)))

        assert labels(plane.services) == [backup.ref.label.text]

    def test_ten_deliveries_make_one_row_and_one_message(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()

        for _ in range(10):
            take_in_backup(plane.services, backup.ref.document)

        assert len(labels(plane.services)) == 1
        assert len(plane.take_jobs(RESTORE_QUEUE)) == 1

    def test_a_replay_after_a_month_changes_nothing(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        take_in_backup(plane.services, backup.ref.document)
        plane.take_jobs(RESTORE_QUEUE)
        before = plane.catalogue.content()
        plane.clock.advance(days=31)

        take_in_backup(plane.services, backup.ref.document)

        assert plane.catalogue.content() == before
        assert plane.take_jobs(RESTORE_QUEUE) == []

    def test_an_event_before_the_blob_can_be_read_is_raised_and_retried(
        self, plane: ControlPlane
    ) -> None:
        ghost = Committed(plane.repository.commit().ref, "")
        plane.repository.store.delete(ghost.ref.document)

        with pytest.raises(BackupNotFound):
            take_in_backup(plane.services, ghost.ref.document)
        assert plane.catalogue.set_aside_codes() == {}

    def test_while_the_catalogue_is_down_the_event_is_raised_and_the_retry_succeeds(
        self, plane: ControlPlane
    ) -> None:
        backup = plane.repository.commit()
        up = plane.catalogue
        plane.catalogue = PostgresCatalogue("host=127.0.0.1 port=1 dbname=x")

        with pytest.raises(CatalogueUnavailable):
            take_in_backup(plane.services, backup.ref.document)
        plane.catalogue = up
        take_in_backup(plane.services, backup.ref.document)

        assert labels(plane.services) == [backup.ref.label.text]

    def test_a_forged_document_is_set_aside_and_the_next_backup_flows(
        self, plane: ControlPlane
    ) -> None:
        forger = Ed25519Signer(key_id=plane.repository.signer.key_id)
        forged = plane.repository.commit(signer=forger)
        good = plane.repository.commit(at=NOON + timedelta(hours=1))

        take_in_backup(plane.services, forged.ref.document)
        take_in_backup(plane.services, good.ref.document)

        assert labels(plane.services) == [good.ref.label.text]
        assert plane.catalogue.set_aside_codes() == {str(forged.ref.document): "signature-invalid"}

    def test_a_backup_under_another_ones_name_is_set_aside(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        raw = plane.repository.store.read(backup.ref.document, limit=1 << 20)
        moved = BlobName("full", "demo/20261122T130000Z-F-aaaa/backup.json")
        plane.repository.store.create(moved, raw)

        take_in_backup(plane.services, moved)

        assert plane.catalogue.set_aside_codes() == {str(moved): "document-misplaced"}

    @pytest.mark.parametrize(
        ("path", "code"),
        [
            ("demo/nonsense/backup.json", "backup-label-invalid"),
            ("demo/20261122T120000Z-I-aaaa/backup.json", "blob-name-unknown"),
            ("Not A Cluster/20261122T120000Z-F-aaaa/backup.json", "blob-name-unknown"),
        ],
    )
    def test_a_foreign_blob_is_set_aside(self, plane: ControlPlane, path: str, code: str) -> None:
        take_in_backup(plane.services, BlobName("full", path))

        assert plane.catalogue.set_aside_codes() == {f"full/{path}": code}

    def test_a_cluster_that_nobody_registered_is_set_aside_until_it_is(
        self, plane: ControlPlane
    ) -> None:
        backup = plane.repository.commit("stranger")
        take_in_backup(plane.services, backup.ref.document)
        assert plane.catalogue.set_aside_codes() == {str(backup.ref.document): "cluster-unknown"}

        plane.repository.register("stranger")
        take_in_backup(plane.services, backup.ref.document)

        assert plane.catalogue.set_aside_codes() == {}
        assert labels(plane.services) == [backup.ref.label.text]

    def test_what_is_missing_or_replaced_around_a_document_becomes_a_finding(
        self, plane: ControlPlane
    ) -> None:
        store = plane.repository.store
        first = plane.repository.commit()
        broken = Committed(first.ref, "f" * 64)
        second = plane.repository.commit(
            at=NOON + timedelta(hours=1), previous=broken, omit=layout.INDEX
        )
        store.delete(second.ref.blob("base.pgdata.0000"))
        store.create(second.ref.blob("base.pgdata.0000"), b"short")
        store.delete(layout.key_record(first.ref.cluster, backup_document("demo").kid))

        take_in_backup(plane.services, second.ref.document)

        findings = plane.catalogue.backup(second.ref).findings
        assert [(item.code, item.object.rpartition("/")[2]) for item in findings] == [
            ("part-size-differs", "base.pgdata.0000"),
            ("blob-not-found", "index"),
            ("blob-not-found", f"{backup_document('demo').kid}.json"),
            ("chain-broken", "backup.json"),
        ]

    def test_a_backup_of_another_system_under_the_clusters_name_is_found_out(
        self, plane: ControlPlane
    ) -> None:
        plane.repository.register("clone", system="42")
        backup = plane.repository.commit("clone")

        take_in_backup(plane.services, backup.ref.document)

        [finding] = plane.catalogue.backup(backup.ref).findings
        assert finding.code == "cluster-identity-differs"


class TestJobEvents:
    def test_a_finished_verification_makes_the_backup_verified(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        take_in_backup(plane.services, backup.ref.document)
        plane.repository.verify(backup, "report-1")

        take_in_event(plane.services, finished(JobVerb.VERIFY, "report-1"))

        assert plane.catalogue.backup(backup.ref).facts.verified
        assert plane.catalogue.job(UUID(int=5)).progress.state is JobState.SUCCEEDED

    def test_its_report_may_come_before_the_backup_itself(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        plane.repository.drill(backup, "report-1", DrillVerdict.PROVEN)

        take_in_event(plane.services, finished(JobVerb.DRILL, "report-1"))
        take_in_backup(plane.services, backup.ref.document)

        assert plane.catalogue.backup(backup.ref).facts.proven

    def test_an_event_alone_proves_nothing(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        take_in_backup(plane.services, backup.ref.document)

        with pytest.raises(BlobNotFound):
            take_in_event(plane.services, finished(JobVerb.DRILL, "no-such-report"))

        assert plane.catalogue.backup(backup.ref).facts.proven_at is None

    def test_a_result_that_is_no_report_id_is_set_aside(self, plane: ControlPlane) -> None:
        take_in_event(plane.services, finished(JobVerb.VERIFY, "../../other/x"))

        [(name, code)] = plane.catalogue.set_aside_codes().items()
        assert (name.startswith("evidence/demo/"), code) == (True, "blob-name-unknown")

    def test_a_forged_report_is_set_aside(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        forger = SignedRepository(
            plane.repository.store, Ed25519Signer(key_id=plane.repository.signer.key_id)
        )
        name = forger.drill(backup, "report-1", DrillVerdict.PROVEN)

        take_in_report(plane.services, name)

        assert plane.catalogue.set_aside_codes() == {str(name): "signature-invalid"}
        assert plane.catalogue.content()["drill"] == []

    def test_an_event_of_a_cluster_that_no_settings_name_is_set_aside(
        self, plane: ControlPlane
    ) -> None:
        take_in_event(plane.services, finished(JobVerb.BACKUP, "x", cluster="stranger"))

        assert list(plane.catalogue.set_aside_codes().values()) == ["cluster-unknown"]
        assert plane.catalogue.running_jobs() == []

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"x" * 70_000, b'{"version": 2}'])
    def test_what_is_no_event_is_raised_for_the_poison_queue(
        self, services: Services, body: bytes
    ) -> None:
        with pytest.raises(MessageInvalid):
            take_in_event(services, body)


class TestDispatch:
    def test_a_due_tick_becomes_one_job_however_often_the_timer_fires(
        self, plane: ControlPlane
    ) -> None:
        for _ in range(3):
            dispatch(plane.services)

        [job] = plane.take_jobs(BACKUP_QUEUE)
        assert job.model_dump()["due"] == NOON.replace(hour=3, minute=0, second=0, microsecond=0)

    def test_three_missed_days_are_caught_up_once_and_marked_late(
        self, plane: ControlPlane
    ) -> None:
        dispatch(plane.services)
        [first] = plane.take_jobs(BACKUP_QUEUE)
        take_in_event(plane.services, _ended(first.job_id, plane))
        plane.clock.advance(days=3)

        dispatch(plane.services)
        dispatch(plane.services)

        [job] = plane.take_jobs(BACKUP_QUEUE)
        assert job.model_dump()["late"] is True

    def test_a_tick_on_time_is_not_late(self, plane: ControlPlane) -> None:
        plane.clock.now = NOON.replace(hour=3, minute=0, second=30)

        dispatch(plane.services)

        [job] = plane.take_jobs(BACKUP_QUEUE)
        assert job.model_dump()["late"] is False

    def test_a_crash_between_recording_and_sending_loses_nothing(self, plane: ControlPlane) -> None:
        queues = plane.queues
        plane.queues = {**queues, BACKUP_QUEUE: _Broken()}
        with pytest.raises(StorageUnavailable):
            dispatch(plane.services)

        plane.queues = queues
        dispatch(plane.services)
        assert plane.take_jobs(BACKUP_QUEUE) == []  # perhaps the other instance still sends
        plane.clock.advance(seconds=CLAIM_LAPSES.total_seconds() + 1)
        dispatch(plane.services)

        assert len(plane.take_jobs(BACKUP_QUEUE)) == 1

    def test_an_incremental_comes_when_it_is_due_and_not_beside_a_full_one(
        self, plane: ControlPlane
    ) -> None:
        plane.schedule = {"full": "0 3 * * 0", "incremental": "0 3 * * *"}
        kinds = []
        for _ in range(8):  # from a Sunday to the next
            for _ in range(2):
                dispatch(plane.services)
            for job in plane.take_jobs(BACKUP_QUEUE):
                kinds.append(job.model_dump()["kind"])
                take_in_event(plane.services, _ended(job.job_id, plane))
            plane.clock.advance(days=1)

        # On the second Sunday both are due: the full one holds all of the other.
        assert kinds == ["full", *["incremental"] * 6, "full"]

    def test_a_tick_is_skipped_while_the_previous_backup_runs(self, plane: ControlPlane) -> None:
        dispatch(plane.services)
        [job] = plane.take_jobs(BACKUP_QUEUE)
        plane.clock.advance(days=1)
        take_in_event(plane.services, _heard(job.job_id, plane))

        dispatch(plane.services)
        assert plane.take_jobs(BACKUP_QUEUE) == []

        for _ in range(8):  # silent since: after a few looks it is given up and asked for again
            plane.clock.advance(minutes=1)
            dispatch(plane.services)
        assert len(plane.take_jobs(BACKUP_QUEUE)) == 1


class _Broken(MemoryQueue):
    """A queue whose service is down."""

    def send(self, body: str, *, delay_s: int = 0) -> None:
        raise StorageUnavailable("queue is down")


def _ended(job_id: UUID, plane: ControlPlane) -> bytes:
    return finished(JobVerb.BACKUP, "a-label", job_id=job_id, at=plane.clock.now)


def _heard(job_id: UUID, plane: ControlPlane) -> bytes:
    event = JobEvent(
        job_id=job_id,
        cluster="demo",
        verb=JobVerb.BACKUP,
        kind=JobEventKind.STARTED,
        attempt=1,
        at=plane.clock(),
    )
    return event.model_dump_json().encode()


class TestReconcile:
    def test_it_finds_backups_and_reports_whose_events_were_lost(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        plane.repository.verify(backup, "v1")
        plane.repository.drill(backup, "d1", DrillVerdict.PROVEN)

        reconcile(plane.services)

        facts = plane.catalogue.backup(backup.ref).facts
        assert (facts.verified, facts.proven) == (True, True)
        rebuilt = plane.catalogue.content()
        rebuild(plane.catalogue, plane.repository.store, plane.repository.pinned, plane.clock())
        assert plane.catalogue.content() == rebuilt

    def test_it_goes_on_past_forged_and_foreign_blobs_and_sets_them_aside_once(
        self, plane: ControlPlane
    ) -> None:
        plane.repository.store.create(BlobName("full", "a/b/c/backup.json"), b"x")
        forged = plane.repository.commit(signer=Ed25519Signer(key_id="stranger"))
        good = plane.repository.commit(at=NOON + timedelta(hours=1))

        for _ in range(2):
            reconcile(plane.services)

        assert labels(plane.services) == [good.ref.label.text]
        assert plane.catalogue.set_aside_codes() == {
            "full/a/b/c/backup.json": "blob-name-unknown",
            str(forged.ref.document): "signer-not-pinned",
        }

    def test_it_repeats_a_verification_that_was_lost_but_not_sooner(
        self, plane: ControlPlane
    ) -> None:
        backup = plane.repository.commit()
        take_in_backup(plane.services, backup.ref.document)
        [lost] = plane.take_jobs(RESTORE_QUEUE)
        plane.clock.advance(hours=1)
        reconcile(plane.services)
        assert plane.take_jobs(RESTORE_QUEUE) == []

        plane.clock.advance(seconds=VERIFIED_WITHIN.total_seconds())
        for _ in range(2):
            reconcile(plane.services)

        assert plane.take_jobs(RESTORE_QUEUE) == [lost]

    def test_after_a_rebuild_it_asks_for_verifications_that_nobody_remembers(
        self, plane: ControlPlane
    ) -> None:
        backup = plane.repository.commit()
        rebuild(plane.catalogue, plane.repository.store, plane.repository.pinned, NOON)
        plane.clock.advance(hours=7)

        reconcile(plane.services)

        [job] = plane.take_jobs(RESTORE_QUEUE)
        assert job.model_dump()["document_digest"] == backup.digest
