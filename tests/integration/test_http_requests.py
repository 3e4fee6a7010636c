"""What operators ask for over HTTP, and what they are shown: real requests, a real catalogue."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.intake import take_in_backup, take_in_report
from functions.outbox import send_requested
from functions.queue_job_event import take_in_event
from shared.domain.agenda import AgendaChanges, AgendaEntry
from shared.domain.cluster import ClusterName
from shared.domain.drill import DrillVerdict
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.domain.job import JobEventKind, JobVerb
from shared.domain.schedule import ScheduleKind
from shared.errors import StorageUnavailable
from shared.jobs.messages import (
    BACKUP_QUEUE,
    RESTORE_QUEUE,
    BackupJob,
    JobEvent,
    RestoreJob,
)
from shared.repository import layout
from shared.repository.audit_trail import AuditEvent, verify_trail
from shared.repository.blob_store import BlobName
from shared.repository.documents import FullInstead
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.http_caller import HttpCaller, calling
from tests.harness.light_plane import light_plane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import NOON, Committed

pytestmark = pytest.mark.integration

DEMO = ClusterName("demo")
RESTORE = {"cluster": "demo", "target": "scratch"}


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def web(server: CatalogueServer, tmp_path: Path) -> Iterator[HttpCaller]:
    with calling(light_plane(server, tmp_path), tmp_path) as caller:
        yield caller


def taken_in(web: HttpCaller, **changes: Any) -> Committed:
    backup = web.plane.repository.commit(**changes)
    take_in_backup(web.plane.services, backup.ref.document)
    return backup


def wal(web: HttpCaller, segment: int) -> None:
    """A whole segment of 16 MiB by its name; nobody opens it."""
    name = BlobName(layout.WAL, f"demo/00000001/{1:08X}{0:08X}{segment:08X}")
    web.plane.repository.store.create(name, b"sealed")


def trail(web: HttpCaller) -> list[tuple[str, str]]:
    """Action and outcome of every audit event."""
    store = web.plane.repository.store
    assert verify_trail(store).breaks == ()
    blobs = store.list(layout.EVIDENCE, layout.AUDIT_PREFIX)
    events = [AuditEvent.model_validate_json(store.read(b.name, limit=1 << 20)) for b in blobs]
    return [(event.action, event.outcome) for event in events]


class TestBackups:
    def test_they_are_listed_with_their_three_facts_in_pages(self, web: HttpCaller) -> None:
        backups = [taken_in(web, at=NOON + timedelta(hours=hour)) for hour in range(3)]
        take_in_report(web.plane.services, web.plane.repository.verify(backups[0], "v1"))

        status, body = web.get("/api/backups", cluster="demo")

        assert status == 200
        facts = [(one["label"], one["verified"], one["proven"]) for one in body["backups"]]
        labels = [backup.ref.label.text for backup in backups]
        assert facts == [
            (labels[2], False, False),
            (labels[1], False, False),
            (labels[0], True, False),
        ]
        _, page = web.get("/api/backups", limit="2", before=labels[2])
        assert [one["label"] for one in page["backups"]] == labels[1::-1]

    def test_an_incremental_may_be_asked_for_and_a_full_one_says_why_it_is_none(
        self, web: HttpCaller
    ) -> None:
        why = FullInstead(code="no-backup", reason="it is the first")
        full = taken_in(web, instead_of_incremental=why)
        taken_in(web, at=NOON + timedelta(hours=1), parent=full.link)

        _, body = web.get("/api/backups")

        chains = [(item["parent"], item["depth"]) for item in body["backups"]]
        assert chains == [(full.ref.label.text, 1), (None, 0)]
        whys = [item["instead_of_incremental"] for item in body["backups"]]
        assert whys == [None, {"code": "no-backup", "reason": "it is the first"}]
        assert web.post("/api/backups", {"cluster": "demo", "kind": "incremental"})[0] == 202
        [job] = web.plane.take_jobs(BACKUP_QUEUE)
        assert isinstance(job, BackupJob)
        assert job.kind.value == "incremental"

    def test_a_request_is_accepted_while_the_queue_is_down_and_sent_later(
        self, web: HttpCaller
    ) -> None:
        queues = web.plane.queues
        web.plane.queues = {**queues, BACKUP_QUEUE: _Broken()}
        status, accepted = web.post("/api/backups", {"cluster": "demo"})
        web.plane.queues = queues
        web.plane.clock.advance(minutes=3)

        send_requested(web.plane.services)

        assert status == 202
        [job] = web.plane.take_jobs(BACKUP_QUEUE)
        assert accepted == {
            "job_id": str(job.job_id),
            "status_url": f"/api/jobs/{job.job_id}",
        }


class _Broken(MemoryQueue):
    def send(self, body: str, *, delay_s: int = 0) -> None:
        raise StorageUnavailable("queue is down")


class TestIdempotencyKeys:
    def test_h07_the_same_key_is_the_same_job_of_the_same_caller(self, web: HttpCaller) -> None:
        body = {"cluster": "demo"}
        answers = [web.post("/api/backups", body, key="monday") for _ in range(2)]
        assert answers[0] == answers[1]
        assert answers[0][0] == 202
        assert len(web.plane.take_jobs(BACKUP_QUEUE)) == 1

        status, problem = web.post("/api/drills", body, key="monday")
        assert (status, problem["code"]) == (409, "request-conflict")
        assert trail(web)[-1] == ("POST /api/drills", "refused")
        # The key of one person says nothing about what another one asks for.
        assert web.post("/api/drills", body, key="monday", name="bob")[0] == 202

    def test_h07_restores_have_keys_too(self, web: HttpCaller) -> None:
        first, again = (web.post("/api/restores", RESTORE, key="r") for _ in range(2))
        assert first == again
        other = web.post("/api/restores", {**RESTORE, "to": "immediate"}, key="r")
        assert (other[0], other[1]["code"]) == (409, "request-conflict")
        bobs = web.post("/api/restores", RESTORE, key="r", name="bob")
        assert bobs[1]["id"] != first[1]["id"]
        # The same key makes a job, too, without one standing in for the other.
        assert web.post("/api/backups", {"cluster": "demo"}, key="r")[0] == 202
        assert len(web.get("/api/restores")[1]["restores"]) == 2


class TestRestores:
    def test_another_person_approves_and_the_job_goes_to_the_restore_worker(
        self, web: HttpCaller
    ) -> None:
        backup = taken_in(web)
        web.plane.take_jobs(RESTORE_QUEUE)
        label = backup.ref.label.text
        body = {**RESTORE, "label": label, "to": "2026-11-22T13:00:00+01:00"}
        status, asked = web.post("/api/restores", body)
        assert (status, asked["state"], asked["job"]) == (201, "requested", None)
        assert web.plane.take_jobs(RESTORE_QUEUE) == []
        path = f"{asked['status_url']}/decision"

        own = web.post(path, {"decision": "approve"}, "approver")
        assert (own[0], own[1]["code"]) == (403, "own-approval")
        status, approved = web.post(path, {"decision": "approve"}, "approver", name="bob")

        assert (status, approved["state"], approved["decided_by"]) == (200, "approved", "bob")
        [job] = web.plane.take_jobs(RESTORE_QUEUE)
        assert isinstance(job, RestoreJob)
        assert (job.requested_by, job.approved_by) == ("anna", "bob")
        assert (job.target, job.label, job.to) == ("scratch", label, "2026-11-22T12:00:00.000000Z")
        assert web.get(asked["status_url"])[1]["job"]["state"] == "requested"
        assert web.post(path, {"decision": "approve"}, "approver", name="bob")[0] == 200
        late = web.post(path, {"decision": "cancel"}, "operator")
        assert (late[0], late[1]["code"]) == (409, "restore-decided")
        assert trail(web) == [
            ("restore.request", "allowed"),
            ("POST /api/restores/{id}/decision", "refused"),
            ("restore.approve", "allowed"),
            ("restore.approve", "allowed"),
            ("POST /api/restores/{id}/decision", "refused"),
        ]

    @pytest.mark.parametrize(
        "field",
        ["url", "path", "host", "directory", "command", "dsn", "requested_by", "approved_by"],
    )
    def test_h08_nothing_but_names_of_registered_things_is_taken(
        self, web: HttpCaller, field: str
    ) -> None:
        status, problem = web.post("/api/restores", {**RESTORE, field: "http://169.254.169.254/"})
        assert (status, problem["code"]) == (400, "request-invalid")
        assert problem["fact"].startswith(field)

    def test_h09_of_an_approval_and_a_cancellation_at_once_one_wins(self, web: HttpCaller) -> None:
        _, asked = web.post("/api/restores", RESTORE)
        path = f"{asked['status_url']}/decision"
        with ThreadPoolExecutor(2) as pool:
            approval = pool.submit(web.post, path, {"decision": "approve"}, "approver", name="bob")
            cancellation = pool.submit(web.post, path, {"decision": "cancel"})
            statuses = sorted([approval.result()[0], cancellation.result()[0]])
        assert statuses == [200, 409]
        approved = web.get(asked["status_url"])[1]["state"] == "approved"
        assert len(web.plane.take_jobs(RESTORE_QUEUE)) == approved

    def test_h14_they_are_listed_in_pages_and_by_state(self, web: HttpCaller) -> None:
        ids: list[str] = []
        for _ in range(3):
            web.plane.clock.advance(minutes=1)
            ids.insert(0, web.post("/api/restores", RESTORE)[1]["id"])
        web.post(f"/api/restores/{ids[1]}/decision", {"decision": "refuse"}, "approver")

        def listed(**params: str) -> list[str]:
            return [one["id"] for one in web.get("/api/restores", **params)[1]["restores"]]

        assert listed(limit="2") == ids[:2]
        assert listed(before=ids[1], limit="2") == ids[2:]
        assert listed(state="refused", cluster="demo") == [ids[1]]


class TestPlans:
    def test_the_latest_is_planned_with_the_newest_backup_and_its_wal(
        self, web: HttpCaller
    ) -> None:
        backup = taken_in(web, at=NOON)
        for segment in (2, 3, 4):
            wal(web, segment)

        status, shown = web.post("/api/plans", {"cluster": "demo"}, "reader")

        assert (status, shown["reachable"], shown["refused"]) == (200, True, None)
        plan = shown["plan"]
        assert plan["backup"]["label"] == backup.ref.label.text
        assert (plan["backup"]["stored_bytes"], plan["segments"]) == (43, 3)
        assert plan["window"]["end"] == "0/5000000"
        assert shown["windows"] == [plan["window"]]
        assert trail(web) == []  # nothing was changed

    def test_what_is_out_of_reach_says_why_and_what_is_near(self, web: HttpCaller) -> None:
        taken_in(web, at=NOON)
        early = {"cluster": "demo", "to": "2026-11-22T11:00:00Z"}

        _, shown = web.post("/api/plans", early, "reader")

        assert (shown["reachable"], shown["plan"]) == (False, None)
        assert shown["refused"].startswith("time 2026-11-22T11:00:00.000000Z cannot be reached")
        assert "--immediate" in shown["nearest"]
        assert web.post("/api/plans", {**early, "to": "immediate"}, "reader")[1]["reachable"]

    def test_timelines_whose_history_is_sealed_are_named_and_not_guessed(
        self, web: HttpCaller
    ) -> None:
        taken_in(web, at=NOON)
        store = web.plane.repository.store
        store.create(BlobName(layout.WAL, f"demo/00000002/{2:08X}{0:08X}{4:08X}"), b"sealed")
        store.create(BlobName(layout.WAL, "demo/00000002.history"), b"sealed")
        _, shown = web.post("/api/plans", {"cluster": "demo"}, "reader")
        assert shown["unweighed_timelines"] == [2]

    def test_without_a_backup_there_is_nothing_to_plan(self, web: HttpCaller) -> None:
        status, problem = web.post("/api/plans", {"cluster": "demo"}, "reader")
        assert (status, problem["code"]) == (404, "backup-not-found")
        label = "20200101T000000Z-F-aaaa"
        assert web.post("/api/drills", {"cluster": "demo", "label": label})[0] == 404
        assert web.post("/api/restores", {**RESTORE, "label": label})[0] == 404


class TestDrillsAndJobs:
    def test_a_drill_shows_its_state_and_then_its_report(self, web: HttpCaller) -> None:
        backup = taken_in(web)
        asked = {"cluster": "demo", "label": backup.ref.label.text, "target": "latest"}
        _, accepted = web.post("/api/drills", asked)
        job_id = accepted["job_id"]
        assert accepted["status_url"] == f"/api/drills/{job_id}"
        assert "latest" in [vars(job).get("target") for job in web.plane.take_jobs(RESTORE_QUEUE)]
        _, before = web.get(f"/api/drills/{job_id}")
        web.plane.repository.drill(backup, job_id, DrillVerdict.PROVEN)
        event = JobEvent(
            job_id=UUID(job_id),
            cluster="demo",
            verb=JobVerb.DRILL,
            kind=JobEventKind.FINISHED,
            attempt=1,
            at=NOON,
            succeeded=True,
            result=job_id,
        )
        take_in_event(web.plane.services, event.model_dump_json().encode())
        _, after = web.get(f"/api/drills/{job_id}")

        assert (before["state"], before["report"]) == ("requested", None)
        assert after["state"] == "succeeded"
        assert after["report"]["verdict"] == "proven"
        assert web.get(f"/api/jobs/{job_id}")[1]["result"] == job_id

    def test_unknown_ids_foreign_ids_and_other_jobs_look_alike(self, web: HttpCaller) -> None:
        _, backup = web.post("/api/backups", {"cluster": "demo"})
        ids = ["x", str(uuid4()), backup["job_id"], "' OR 1=1 --"]
        answers = [web.get(f"/api/drills/{job_id}") for job_id in ids]
        assert {status for status, _ in answers} == {404}
        assert all(body == answers[0][1] for _, body in answers)

    def test_h14_jobs_are_listed_in_pages_and_by_state(self, web: HttpCaller) -> None:
        ids: list[str] = []
        for _ in range(3):
            web.plane.clock.advance(minutes=1)
            ids.insert(0, web.post("/api/backups", {"cluster": "demo"})[1]["job_id"])

        def listed(**params: str) -> list[str]:
            return [one["job_id"] for one in web.get("/api/jobs", **params)[1]["jobs"]]

        assert listed() == ids
        assert listed(limit="1", before=ids[0]) == [ids[1]]
        assert listed(state="running") == []


class TestClustersAndFindings:
    def test_a_cluster_shows_its_policy_its_newest_backups_and_what_is_wrong(
        self, web: HttpCaller
    ) -> None:
        old = taken_in(web)
        new = taken_in(web, at=NOON + timedelta(minutes=30))
        take_in_report(web.plane.services, web.plane.repository.verify(old, "v1"))
        gap = Finding(FindingCode.GAP, "1", NOON, "a hole")
        web.plane.catalogue.open_findings(DEMO, [gap], NOON)
        tonight = NOON + timedelta(hours=15)
        entry = AgendaEntry(DEMO, ScheduleKind.FULL, "0 3 * * *", timedelta(), tonight)
        web.plane.catalogue.change_agenda(AgendaChanges(put=(entry,)), "digest")

        status, shown = web.get("/api/clusters/demo")

        assert status == 200
        newest = {fact: one and one["label"] for fact, one in shown["newest"].items()}
        assert newest == {
            "committed": new.ref.label.text,
            "verified": old.ref.label.text,
            "proven": None,
        }
        assert shown["policy"]["schedule"]["full"] == "0 3 * * *"
        [run] = shown["next_runs"]
        assert (run["kind"], run["next_at"][:19]) == ("full", "2026-11-23T03:00:00")
        assert shown["findings"] == {"critical": 1, "error": 0, "warning": 0}
        assert "nowhere" not in str(shown)  # where it runs is nobody's business here
        _, page = web.get("/api/clusters")
        [listed] = page["clusters"]
        assert (listed["cluster"], listed["policy"]) == ("demo", None)
        assert listed["findings"] == shown["findings"]
        times = [listed[f"{fact}_at"] for fact in ("committed", "verified", "proven")]
        commits = [shown["newest"][fact]["committed_at"] for fact in ("committed", "verified")]
        assert times == [*commits, None]
        assert shown["recovery_time"]["promised"] == 240 * 60
        assert shown["recovery_time"]["predicted"] is None  # without any drill
        assert web.get("/api/clusters", after="demo")[1] == {"clusters": []}

    def test_findings_are_filtered_and_tell_what_to_do(self, web: HttpCaller) -> None:
        catalogue = web.plane.catalogue
        gap = Finding(FindingCode.GAP, "1", NOON, "a hole", {"timeline": "1"})
        slot = Finding(FindingCode.SLOT_UNLIMITED, "s", NOON, "no limit")
        catalogue.open_findings(DEMO, [gap, slot], NOON)
        catalogue.open_findings(REPOSITORY, [gap], NOON)

        def codes(**params: str) -> list[tuple[str | None, str]]:
            found = web.get("/api/findings", **params)[1]["findings"]
            return sorted((one["cluster"] or "", one["code"]) for one in found)

        assert codes(severity="warning") == [("demo", "wal-slot-unlimited")]
        assert codes(code="wal-gap") == [("", "wal-gap"), ("demo", "wal-gap")]
        assert codes(repository="true") == [("", "wal-gap")]
        assert codes(scope="guard") == []
        _, page = web.get("/api/findings", cluster="demo", code="wal-gap", limit="1")
        assert page["findings"][0]["evidence"] == {"timeline": "1"}
        assert page["findings"][0]["action"].endswith("docs/runbooks/wal-gap.md.")
        assert web.get("/api/findings", limit="1")[1]["more"]
        catalogue.settle_findings(DEMO, [FindingScope.WAL], [], NOON + timedelta(hours=1))
        assert codes(cluster="demo") == []
        since = "2026-11-22T00:00:00Z"
        assert len(codes(cluster="demo", closed_since=since)) == 2


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    path=st.sampled_from(["clusters", "backups", "jobs", "restores", "findings", "wal"]),
    params=st.dictionaries(
        st.sampled_from(["cluster", "before", "after", "limit", "state", "code", "x"]),
        st.one_of(st.text(max_size=20), st.integers().map(str), st.uuids().map(str)),
        max_size=3,
    ),
)
def test_h14_no_page_or_filter_makes_more_than_an_answer_or_a_refusal(
    web: HttpCaller, path: str, params: dict[str, str]
) -> None:
    status, body = web.get(f"/api/{path}", **params)
    assert status in {200, 400, 404}
    assert (status == 200) != ("code" in body)
