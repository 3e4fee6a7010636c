"""The control plane with real storage, real queues (Azurite) and a real catalogue (PostgreSQL)."""

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import azure.functions as func
import pytest

from functions.blob_backup_committed import blob_backup_committed
from functions.http_backups import list_backups, request_backup
from functions.http_drills import request_drill, show_drill
from functions.http_protocol import answer
from functions.intake import take_in_backup, take_in_report
from functions.queue_job_event import take_in_event
from functions.silent_jobs import LOST_AFTER
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
from shared.repository.documents import FullInstead
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
        plane.take_jobs(BACKUP_QUEUE)
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
        for _ in range(2):  # at first both are due: the full one holds all of the other
            dispatch(plane.services)
        [first] = plane.take_jobs(BACKUP_QUEUE)
        plane.clock.advance(days=1)
        dispatch(plane.services)
        [second] = plane.take_jobs(BACKUP_QUEUE)

        assert [job.model_dump()["kind"] for job in (first, second)] == ["full", "incremental"]

    def test_a_tick_is_skipped_while_the_previous_backup_runs(self, plane: ControlPlane) -> None:
        dispatch(plane.services)
        [job] = plane.take_jobs(BACKUP_QUEUE)
        plane.clock.advance(days=1)
        take_in_event(plane.services, _heard(job.job_id, plane))

        dispatch(plane.services)
        assert plane.take_jobs(BACKUP_QUEUE) == []

        plane.clock.advance(days=1)  # silent since: it holds up nothing any more
        dispatch(plane.services)
        assert len(plane.take_jobs(BACKUP_QUEUE)) == 1


class _Broken(MemoryQueue):
    """A queue whose service is down."""

    def send(self, body: str, *, delay_s: int = 0) -> None:
        raise StorageUnavailable("queue is down")


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

    def test_it_declares_a_silent_job_lost_and_a_late_success_still_stands(
        self, plane: ControlPlane
    ) -> None:
        job_id = uuid4()
        take_in_event(plane.services, _heard(job_id, plane))
        reconcile(plane.services)
        assert plane.catalogue.job(job_id).progress.state is JobState.RUNNING

        plane.clock.advance(seconds=LOST_AFTER.total_seconds() + 1)
        reconcile(plane.services)

        progress = plane.catalogue.job(job_id).progress
        assert progress.state is JobState.FAILED
        assert progress.finished is not None
        assert progress.finished.error_code == "job-lost"
        take_in_event(plane.services, finished(JobVerb.BACKUP, "label", job_id=job_id))
        assert plane.catalogue.job(job_id).progress.state is JobState.SUCCEEDED


def http(
    method: str,
    body: object = None,
    *,
    headers: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    route: dict[str, str] | None = None,
) -> func.HttpRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return func.HttpRequest(
        method,
        "/api/x",
        headers={"content-type": "application/json", **(headers or {})},
        params=params,
        route_params=route,
        body=raw,
    )


def shown(response: func.HttpResponse) -> tuple[int, Any]:
    return response.status_code, json.loads(response.get_body())


class TestHttp:
    def test_backups_are_listed_with_their_three_facts(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        plane.repository.verify(backup, "v1")
        reconcile(plane.services)

        status, body = shown(
            list_backups(plane.services, http("GET", params={"cluster": "demo", "code": "key"}))
        )

        assert status == 200
        [listed] = body["backups"]
        assert (listed["label"], listed["verified"], listed["proven"]) == (
            backup.ref.label.text,
            True,
            False,
        )

    def test_a_requested_backup_goes_to_the_queue_once_per_idempotency_key(
        self, plane: ControlPlane
    ) -> None:
        headers = {"idempotency-key": "monday"}
        requests = [http("POST", {"cluster": "demo", "kind": "full"}, headers=headers)] * 2

        answers = [shown(request_backup(plane.services, request)) for request in requests]

        assert answers[0] == answers[1]
        assert answers[0][0] == 202
        [job] = plane.take_jobs(BACKUP_QUEUE)
        assert str(job.job_id) == answers[0][1]["job_id"]

    def test_an_incremental_may_be_asked_for_and_a_full_one_says_why_it_is_none(
        self, plane: ControlPlane
    ) -> None:
        full = plane.repository.commit(
            instead_of_incremental=FullInstead(code="no-backup", reason="it is the first")
        )
        on_it = plane.repository.commit(at=NOON + timedelta(hours=1), parent=full.link)
        for backup in (full, on_it):
            take_in_backup(plane.services, backup.ref.document)
        _, body = shown(list_backups(plane.services, http("GET")))

        chains = [(item["parent"], item["depth"]) for item in body["backups"]]
        assert chains == [(full.ref.label.text, 1), (None, 0)]
        whys = [item["instead_of_incremental"] for item in body["backups"]]
        assert whys == [None, {"code": "no-backup", "reason": "it is the first"}]
        asked = {"cluster": "demo", "kind": "incremental"}
        assert shown(request_backup(plane.services, http("POST", asked)))[0] == 202
        [job] = plane.take_jobs(BACKUP_QUEUE)
        assert job.model_dump()["kind"] == "incremental"

    def test_an_idempotency_key_with_another_body_is_a_conflict(self, plane: ControlPlane) -> None:
        headers = {"idempotency-key": "monday"}
        request_backup(plane.services, http("POST", {"cluster": "demo"}, headers=headers))

        status, body = shown(
            answer(
                lambda: request_drill(
                    plane.services, http("POST", {"cluster": "demo"}, headers=headers)
                )
            )
        )

        assert (status, body["code"]) == (409, "request-conflict")

    def test_a_request_is_accepted_while_the_queue_is_down_and_sent_later(
        self, plane: ControlPlane
    ) -> None:
        queues = plane.queues
        plane.queues = {**queues, BACKUP_QUEUE: _Broken()}
        status, _ = shown(request_backup(plane.services, http("POST", {"cluster": "demo"})))
        plane.queues = queues
        plane.clock.advance(minutes=3)

        dispatch(plane.services)

        assert status == 202
        due, asked = sorted(plane.take_jobs(BACKUP_QUEUE), key=lambda job: str(job.job_id))[::-1]
        assert {due.model_dump()["due"] is None, asked.model_dump()["due"] is None} == {True, False}

    def test_a_drill_shows_its_state_and_then_its_report(self, plane: ControlPlane) -> None:
        backup = plane.repository.commit()
        take_in_backup(plane.services, backup.ref.document)
        asked = {"cluster": "demo", "label": backup.ref.label.text, "target": "latest"}
        _, accepted = shown(request_drill(plane.services, http("POST", asked)))
        job_id = str(accepted["job_id"])
        assert accepted["status_url"] == f"/api/drills/{job_id}"
        assert "latest" in [vars(job).get("target") for job in plane.take_jobs(RESTORE_QUEUE)]
        _, before = shown(show_drill(plane.services, http("GET", route={"id": job_id})))
        plane.repository.drill(backup, job_id, DrillVerdict.PROVEN)
        take_in_event(plane.services, finished(JobVerb.DRILL, job_id, job_id=UUID(job_id)))
        _, after = shown(show_drill(plane.services, http("GET", route={"id": job_id})))

        assert (before["state"], before["report"]) == ("requested", None)
        assert after["state"] == "succeeded"
        assert after["report"]["verdict"] == "proven"

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"cluster": "stranger"}, "cluster-unknown"),
            ({"cluster": "demo", "label": "20200101T000000Z-F-aaaa"}, "backup-not-found"),
        ],
    )
    def test_what_does_not_exist_is_404(
        self, services: Services, body: dict[str, str], code: str
    ) -> None:
        status, problem = shown(answer(lambda: request_drill(services, http("POST", body))))

        assert (status, problem["code"]) == (404, code)

    def test_unknown_ids_foreign_ids_and_other_jobs_look_alike(self, plane: ControlPlane) -> None:
        _, backup = shown(request_backup(plane.services, http("POST", {"cluster": "demo"})))
        ids = ["x", str(uuid4()), str(backup["job_id"]), "' OR 1=1 --", ""]

        requests = [http("GET", route={"id": job_id}) for job_id in ids]
        answers = [
            shown(answer(partial(show_drill, plane.services, request))) for request in requests
        ]

        assert {status for status, _ in answers} == {404}
        assert all(body == answers[0][1] for _, body in answers)
