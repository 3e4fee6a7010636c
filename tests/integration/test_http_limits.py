"""How much callers may ask for, how long a restore waits for a decision, what a trace tells."""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from functions.http_openapi import EVERY_OPERATION
from functions.lapsed_restores import lapse_restores
from functions.outbox import send_requested
from functions.timer_reconcile import reconcile
from shared.catalogue.ports import JobRecord
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.errors import StorageUnavailable
from shared.jobs.messages import BACKUP_QUEUE, RESTORE_QUEUE, DrillJob
from shared.repository import layout
from shared.repository.audit_trail import AuditEvent, verify_trail
from shared.settings import Http
from shared.telemetry.trace_context import span
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.http_caller import MANY, HttpCaller, calling
from tests.harness.light_plane import light_plane
from tests.harness.memory_catalogue import MemoryCatalogue
from tests.harness.memory_queue import MemoryQueue
from tests.harness.recorded_telemetry import Recorded, recorded_telemetry

pytestmark = pytest.mark.integration

BACKUP = {"cluster": "demo"}
RESTORE = {"cluster": "demo", "target": "scratch"}
APPROVE = {"decision": "approve"}


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def web(server: CatalogueServer, tmp_path: Path) -> Iterator[HttpCaller]:
    with calling(light_plane(server, tmp_path), tmp_path) as caller:
        yield caller


@pytest.fixture
def recorded(web: HttpCaller) -> Recorded:
    recorded = recorded_telemetry()
    web.telemetry = recorded.telemetry
    return recorded


def trail(web: HttpCaller) -> list[AuditEvent]:
    store = web.plane.repository.store
    assert verify_trail(store).breaks == ()
    blobs = store.list(layout.EVIDENCE, layout.AUDIT_PREFIX)
    return [AuditEvent.model_validate_json(store.read(b.name, limit=1 << 20)) for b in blobs]


def problem(web: HttpCaller) -> dict[str, str]:
    """What the last answer said."""
    return web.log[-1].json or {}


class TestBudgets:
    def test_t16_who_asks_too_much_is_told_how_long_to_wait_and_others_are_answered(
        self, web: HttpCaller
    ) -> None:
        web.limits = Http(changes_per_minute=3, all_changes_per_minute=5, reads_per_minute=4)

        anna = [web.post("/api/backups", BACKUP)[0] for _ in range(5)]
        assert anna == [202, 202, 202, 429, 429]
        assert web.log[-1].headers["retry-after"] == "20"
        assert problem(web)["code"] == "requests-too-many"
        # Of all callers together two more, and what was refused to one has cost the others nothing.
        bob = [web.post("/api/drills", BACKUP, name="bob")[0] for _ in range(3)]
        assert bob == [202, 202, 429]
        assert "all callers" in problem(web)["fact"]
        # Reads are counted for themselves.
        assert [web.get("/api/jobs")[0] for _ in range(5)] == [200] * 4 + [429]
        web.plane.clock.advance(seconds=20)
        assert web.post("/api/backups", BACKUP)[0] == 202
        # What was too much is no event of the trail: it would be filled by it.
        assert [event.outcome for event in trail(web)] == ["allowed"] * 6

    def test_t16_strangers_and_callers_without_the_role_use_up_nobody_else_s_budget(
        self, web: HttpCaller
    ) -> None:
        web.limits = Http(changes_per_minute=3, all_changes_per_minute=3)
        forged = web.token("operator", lifetime=timedelta())
        strangers = [
            web.send("POST", "/api/backups", BACKUP, token=token).status_code
            for token in [None, forged] * 5
        ]
        assert strangers == [401] * 10
        readers = [web.post("/api/backups", BACKUP, "reader", name="rob")[0] for _ in range(5)]
        assert readers == [403, 403, 403, 429, 429]
        assert len(trail(web)) == 3
        assert [web.post("/api/backups", BACKUP)[0] for _ in range(4)] == [202, 202, 202, 429]

    def test_a_plan_costs_more_than_a_look(self, web: HttpCaller) -> None:
        web.limits = Http(reads_per_minute=45)
        plans = [web.post("/api/plans", BACKUP, "reader")[0] for _ in range(3)]
        assert plans == [404, 404, 429]  # there is no backup
        assert [web.get("/api/jobs")[0] for _ in range(6)] == [200] * 5 + [429]

    def test_a_body_that_does_not_read_and_a_key_that_repeats_are_counted_as_well(
        self, web: HttpCaller
    ) -> None:
        web.limits = Http(changes_per_minute=4)
        bodies: list[object] = [b"{", BACKUP, BACKUP, BACKUP, BACKUP]
        answers = [web.post("/api/backups", body, key="monday")[0] for body in bodies]
        assert answers == [400, 202, 202, 202, 429]

    def test_many_at_once_are_counted_one_by_one(self, web: HttpCaller) -> None:
        web.limits = Http(changes_per_minute=7)
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(web.post, "/api/backups", BACKUP) for _ in range(20)]
            statuses = sorted(one.result()[0] for one in asked)
        assert statuses == [202] * 7 + [429] * 13
        assert len(web.plane.take_jobs(BACKUP_QUEUE)) == 7

    def test_what_cannot_be_counted_is_not_done(self, web: HttpCaller) -> None:
        web.plane.catalogue = PostgresCatalogue("host=127.0.0.1 port=1 dbname=x")
        assert web.post("/api/backups", BACKUP)[0] == 503
        assert trail(web) == []

    def test_whole_budgets_leave_no_row_behind(
        self, web: HttpCaller, server: CatalogueServer
    ) -> None:
        web.post("/api/backups", BACKUP)
        web.plane.clock.advance(hours=1)
        reconcile(web.plane.services)
        web.limits = Http(changes_per_minute=1)
        assert [web.post("/api/backups", BACKUP)[0] for _ in range(2)] == [202, 429]


class TestLapse:
    def test_what_nobody_decided_in_time_is_decided_by_nobody_any_more(
        self, web: HttpCaller
    ) -> None:
        web.limits = MANY.model_copy(update={"restore_lapses_hours": 2})
        _, asked = web.post("/api/restores", RESTORE, key="monday")
        path = asked["status_url"]
        assert asked["lapses_at"].startswith("2026-11-22T14:00:00")
        web.plane.clock.advance(hours=2, microseconds=-1)
        assert web.get(path)[1]["state"] == "requested"
        web.plane.clock.advance(microseconds=1)

        for decision, role in (("approve", "approver"), ("refuse", "approver")):
            late = web.post(f"{path}/decision", {"decision": decision}, role, name="bob")
            assert (late[0], late[1]["code"]) == (409, "request-lapsed")
        assert web.post(f"{path}/decision", {"decision": "cancel"})[1]["code"] == "request-lapsed"
        assert web.get(path)[1]["state"] == "lapsed"
        assert web.get("/api/restores", state="requested")[1]["restores"] == []
        assert len(web.get("/api/restores", state="lapsed")[1]["restores"]) == 1
        # The key stands for what was asked, and that is over.
        assert web.post("/api/restores", RESTORE, key="monday")[1]["state"] == "lapsed"
        assert web.plane.take_jobs(RESTORE_QUEUE) == []

    def test_the_timer_writes_it_down_once_and_a_longer_time_brings_nothing_back(
        self, web: HttpCaller
    ) -> None:
        web.limits = MANY.model_copy(update={"restore_lapses_hours": 1})
        ids = [web.post("/api/restores", RESTORE)[1]["id"] for _ in range(2)]
        web.post(f"/api/restores/{ids[1]}/decision", APPROVE, "approver", name="bob")
        web.plane.clock.advance(hours=1)
        web.limits = MANY.model_copy(update={"restore_lapses_hours": 500})

        for _ in range(2):
            lapse_restores(web.plane.services)

        [lapse] = [event for event in trail(web) if event.action == "restore.lapse"]
        assert (lapse.caller, lapse.object) == ("pgkeep", f"restore {ids[0]}")
        assert lapse.details["requested_by"] == "anna"
        shown = web.get(f"/api/restores/{ids[0]}")[1]
        assert (shown["state"], shown["decided_by"], shown["job"]) == ("lapsed", "pgkeep", None)
        late = web.post(f"/api/restores/{ids[0]}/decision", APPROVE, "approver", name="bob")
        assert late[1]["code"] == "request-lapsed"
        assert web.get(f"/api/restores/{ids[1]}")[1]["state"] == "approved"

    def test_nobody_can_say_that_a_request_lapsed(self, web: HttpCaller) -> None:
        path = web.post("/api/restores", RESTORE)[1]["status_url"]
        for role in ("operator", "approver"):
            assert web.post(f"{path}/decision", {"decision": "lapse"}, role)[0] == 400
        assert web.get(path)[1]["state"] == "requested"


class TestDrillsFromTheSecondary:
    def test_it_is_asked_for_like_any_other(self, web: HttpCaller) -> None:
        web.secondary_url = "auto"
        status, _ = web.post("/api/drills", {**BACKUP, "target": "latest", "from_secondary": True})
        assert status == 202
        [job] = web.plane.take_jobs(RESTORE_QUEUE)
        assert isinstance(job, DrillJob)
        assert (job.from_secondary, job.target) == (True, "latest")
        assert trail(web)[-1].details["from_secondary"] == "True"

    def test_without_a_secondary_it_is_refused_and_a_number_is_no_answer(
        self, web: HttpCaller
    ) -> None:
        status, problem = web.post("/api/drills", {**BACKUP, "from_secondary": True})
        assert (status, problem["code"]) == (409, "no-secondary")
        assert web.post("/api/drills", {**BACKUP, "from_secondary": 1})[0] == 400
        assert web.plane.take_jobs(RESTORE_QUEUE) == []


class Broken(MemoryQueue):
    def send(self, body: str, *, delay_s: int = 0) -> None:
        raise StorageUnavailable("queue is down")


class TestTraces:
    def test_a_request_is_a_trace_and_its_job_a_child_whoever_sends_it(
        self, web: HttpCaller, recorded: Recorded
    ) -> None:
        queues = web.plane.queues
        web.plane.queues = {**queues, BACKUP_QUEUE: Broken()}
        assert web.post("/api/backups", BACKUP)[0] == 202
        web.plane.queues = queues
        web.plane.clock.advance(minutes=3)
        with span(recorded.telemetry, "timer dispatch"):
            send_requested(web.services())

        [own] = recorded.spans("POST /api/backups")
        [job] = web.plane.take_jobs(BACKUP_QUEUE)
        assert own.context is not None
        assert f"{own.context.trace_id:032x}-{own.context.span_id:016x}" in (job.traceparent or "")
        assert (own.kind, own.parent) == (SpanKind.SERVER, None)

    def test_the_job_of_an_approval_is_a_child_of_the_approval(
        self, web: HttpCaller, recorded: Recorded
    ) -> None:
        path = web.post("/api/restores", RESTORE)[1]["status_url"]
        web.post(f"{path}/decision", APPROVE, "approver", name="bob")
        [own] = recorded.spans("POST /api/restores/{id}/decision")
        [job] = web.plane.take_jobs(RESTORE_QUEUE)
        assert own.context is not None
        assert f"{own.context.trace_id:032x}-{own.context.span_id:016x}" in (job.traceparent or "")
        # The same request once more is the same job, whatever its trace.
        assert web.post("/api/backups", BACKUP, key="k") == web.post(
            "/api/backups", BACKUP, key="k"
        )

    def test_a_span_holds_no_word_of_the_caller_s_and_follows_no_trace_of_theirs(
        self, web: HttpCaller, recorded: Recorded
    ) -> None:
        canary = "canary"
        headers = {"traceparent": f"00-{'c' * 32}-{'a' * 16}-00", "x-canary": canary}
        for operation in EVERY_OPERATION:
            path = f"/api/{operation.path.format(id=canary, name=canary)}?q={canary}"
            body = {"cluster": canary} if operation.method == "POST" else None
            token = web.token("reader", name=canary)
            web.send(operation.method, path, body, token=token, headers=headers)
        spans = [one for op in EVERY_OPERATION for one in recorded.spans(op.name)]
        assert len(spans) == len(EVERY_OPERATION)
        for one in spans:
            assert canary not in one.to_json()
            assert one.parent is None

    def test_a_fault_of_ours_marks_the_span_and_a_refusal_does_not(
        self, web: HttpCaller, recorded: Recorded
    ) -> None:
        web.get("/api/jobs/x")
        web.plane.catalogue = PostgresCatalogue("host=127.0.0.1 port=1 dbname=x")
        web.get("/api/jobs")
        [refused], [failed] = recorded.spans("GET /api/jobs/{id}"), recorded.spans("GET /api/jobs")
        seen = [
            (one.status.status_code, one.attributes and one.attributes["error_code"])
            for one in (refused, failed)
        ]
        assert seen == [
            (StatusCode.UNSET, "job-not-found"),
            (StatusCode.ERROR, "catalogue-unavailable"),
        ]


class TestWhatAnybodyMayAsk:
    def test_health_asks_the_catalogue_once_in_five_seconds_however_many_ask(
        self, web: HttpCaller
    ) -> None:
        web.plane.catalogue = counting = Counting()
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(web.send, "GET", "/api/health") for _ in range(20)]
            assert {one.result().json["status"] for one in asked} == {"ok"}  # type: ignore[index]
        assert counting.checks == 1
        web.plane.clock.advance(seconds=5)
        web.send("GET", "/api/health")
        assert counting.checks == 2

    def test_a_page_of_restores_is_one_question_about_their_jobs(self, web: HttpCaller) -> None:
        web.plane.catalogue = counting = Counting()
        for _ in range(3):
            path = web.post("/api/restores", RESTORE)[1]["status_url"]
            web.post(f"{path}/decision", APPROVE, "approver", name="bob")
        counting.questions = 0
        restores = web.get("/api/restores")[1]["restores"]
        assert [one["job"]["state"] for one in restores] == ["requested"] * 3
        assert counting.questions == 1

    def test_wal_is_shown_in_pages_by_name(self, web: HttpCaller) -> None:
        def shown(**params: str) -> list[str]:
            return [one["cluster"] for one in web.get("/api/wal", **params)[1]["clusters"]]

        assert (shown(), shown(after="aaa", limit="1"), shown(after="demo")) == (
            ["demo"],
            ["demo"],
            [],
        )
        assert web.get("/api/wal", limit="101")[0] == 400


class Counting(MemoryCatalogue):
    """How often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.checks = self.questions = 0

    def check(self) -> None:
        self.checks += 1

    def jobs_of(self, job_ids: Collection[UUID]) -> Mapping[UUID, JobRecord]:
        self.questions += 1
        return super().jobs_of(job_ids)
