"""Who may do what over HTTP: H01 to H06, H13 and H15, and the audit trail of T16."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from functions.callers import Role
from functions.http_openapi import EVERY_OPERATION
from local.access_tokens import make_access_key
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.restore_request import Decision
from shared.errors import StorageUnavailable
from shared.jobs.messages import BACKUP_QUEUE, JOB_QUEUES, RESTORE_QUEUE
from shared.repository import layout
from shared.repository.audit_trail import AuditEvent, verify_trail
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.settings import EasyAuth
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.http_caller import HttpCaller, calling
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import SignedRepository

pytestmark = pytest.mark.integration

TENANT = "11111111-2222-3333-4444-555555555555"
BACKUP = {"cluster": "demo"}
# A path with its parameters filled in, and a body that its operation understands.
BODIES: dict[str, dict[str, str]] = {
    "backups": BACKUP,
    "drills": BACKUP,
    "plans": BACKUP,
    "restores": {"cluster": "demo", "target": "scratch"},
    "restores/{id}/decision": {"decision": "cancel"},
}
PARAMETERS = {"id": "00000000-0000-0000-0000-000000000001", "name": "demo"}


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def web(server: CatalogueServer, tmp_path: Path) -> Iterator[HttpCaller]:
    store = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    repository = SignedRepository(store)
    repository.register()
    queues = {name: MemoryQueue() for name in JOB_QUEUES}
    plane = ControlPlane(repository, PostgresCatalogue(server.database()), queues)
    with calling(plane, tmp_path) as caller:
        yield caller


def trail(web: HttpCaller) -> list[AuditEvent]:
    store = web.plane.repository.store
    assert verify_trail(store).breaks == ()
    blobs = store.list(layout.EVIDENCE, layout.AUDIT_PREFIX)
    return [AuditEvent.model_validate_json(store.read(b.name, limit=1 << 20)) for b in blobs]


def principal(*roles: str, **changes: str | None) -> dict[str, str]:
    """What Easy Auth puts before a request of a user of the tenant."""
    claims: dict[str, str | None] = {
        "aud": "api-id",
        "http://schemas.microsoft.com/identity/claims/tenantid": TENANT,
        "http://schemas.microsoft.com/identity/claims/objectidentifier": "anna-oid",
        "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier": "anna-sub",
        "preferred_username": "anna@example.org",
        **changes,
    }
    listed = [{"typ": name, "val": value} for name, value in claims.items() if value is not None]
    document = {
        "auth_typ": "aad",
        "claims": [*listed, *({"typ": "roles", "val": r} for r in roles)],
    }
    return {"x-ms-client-principal": base64.b64encode(json.dumps(document).encode()).decode()}


def behind_easy_auth(web: HttpCaller) -> HttpCaller:
    web.access = EasyAuth(type="easy-auth", tenant_id=TENANT, audiences=("api-id",))
    web.behind_easy_auth = True
    return web


@pytest.mark.parametrize("configured", [True, False], ids=["with access", "without access"])
def test_h01_nobody_gets_past_health_without_a_token(web: HttpCaller, *, configured: bool) -> None:
    token = None if configured else web.token("operator")
    if not configured:
        web.access = None
    for operation in EVERY_OPERATION:
        path = f"/api/{operation.path.format(**PARAMETERS)}"
        response = web.send(operation.method, path, BODIES.get(operation.path), token=token)
        assert response.status_code == 401, operation.name
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json == {
            "status": 401,
            "code": "unauthenticated",
            "fact": "the request names no caller that counts here",
            "hint": "Send a valid token: docs/how-to/grant-access.md.",
        }
    assert web.send("GET", "/api/health").json == {"status": "ok"}
    assert trail(web) == []


def test_h01_a_token_that_is_not_ours_now_and_here_is_401(
    web: HttpCaller, caplog: pytest.LogCaptureFixture
) -> None:
    now = web.plane.clock().timestamp()
    key = web.key.read_text()
    good: dict[str, Any] = {
        "iss": "pgkeep-local",
        "aud": "pgkeep",
        "sub": "anna",
        "roles": ["reader"],
    }
    good |= {"iat": now, "exp": now + 60}

    def signed(algorithm: str = "EdDSA", key: Any = key, **changes: object) -> str:
        claims = {name: value for name, value in (good | changes).items() if value is not None}
        return jwt.encode(claims, key, algorithm=algorithm)

    public = web.key.with_suffix(".public.pem").read_bytes()
    unsigned = jwt.encode(good, "", algorithm="none")
    confused = ".".join([jwt.encode(good, "k" * 32, algorithm="HS256").rpartition(".")[0], "AA"])
    bad = {
        "expired": signed(exp=now),
        "from the future": signed(iat=now + 1),
        "other audience": signed(aud="other"),
        "several audiences": signed(aud=["pgkeep", "other"]),
        "other issuer": signed(iss="other"),
        "no end": signed(exp=None),
        "no roles": signed(roles=None),
        "roles in a text": signed(roles="reader"),
        "endless": signed(exp=float("inf")),
        "no subject": signed(sub=None),
        "hostile subject": signed(sub="anna\nbob"),
        "alg none": unsigned,
        "public key as secret": confused,
        "another key": of_another_key(web, good),
        "altered": signed()[:-8] + "AAAAAAAA",
        "no token": "x",
        "the public key": public.hex(),
    }

    assert web.send("GET", "/api/backups", token=signed()).status_code == 200
    answers = {name: web.send("GET", "/api/backups", token=token) for name, token in bad.items()}

    assert {name: one.status_code for name, one in answers.items()} == dict.fromkeys(bad, 401)
    assert len({one.get_data() for one in answers.values()}) == 1
    reasons = [r.fields["reason"] for r in caplog.records if r.message == "caller-unknown"]  # type: ignore[attr-defined]
    assert "the token is refused: InvalidAudienceError" in reasons


def of_another_key(web: HttpCaller, claims: dict[str, Any]) -> str:
    other = web.key.with_name("other.pem")
    make_access_key(other)
    return jwt.encode(claims, other.read_text(), algorithm="EdDSA")


def test_h01_easy_auths_principal_counts_only_from_our_tenant_and_for_us(web: HttpCaller) -> None:
    behind_easy_auth(web)

    def status(headers: dict[str, str]) -> int:
        return web.send("GET", "/api/backups", headers=headers).status_code

    tenant = "http://schemas.microsoft.com/identity/claims/tenantid"
    assert status(principal("reader")) == 200
    assert status(principal("reader", **{tenant: None}, tid=TENANT)) == 200
    refused = [
        principal("reader", **{tenant: TENANT.replace("1", "9")}),
        principal("reader", **{tenant: None}),
        principal("reader", tid=TENANT),  # two claims of one kind: which was checked?
        principal("reader", aud="other-api"),
        principal(
            "reader", **{"http://schemas.microsoft.com/identity/claims/objectidentifier": " "}
        ),
        {"x-ms-client-principal": "not base64!"},
        {"x-ms-client-principal": base64.b64encode(b"[" * 20_000).decode()},
        {"x-ms-client-principal": base64.b64encode(b'{"auth_typ":"aad","claims":[1]}').decode()},
        {"x-ms-client-principal": base64.b64encode(b'{"auth_typ":"github","claims":[]}').decode()},
        {"authorization": f"Bearer {web.token('reader')}"},  # a local token is none here
        {},
    ]
    assert [status(headers) for headers in refused] == [401] * len(refused)
    assert status(principal()) == 403
    assert status(principal("pgkeep.reader", "Reader", "admin")) == 403

    web.behind_easy_auth = False  # then everybody could send that header
    assert status(principal("reader")) == 401


def test_h01_an_application_never_approves(web: HttpCaller) -> None:
    behind_easy_auth(web)
    _, asked = behind(web, "/api/restores", BODIES["restores"], principal("operator"))
    path, approve = f"/api/restores/{asked['id']}/decision", {"decision": "approve"}
    oid = "http://schemas.microsoft.com/identity/claims/objectidentifier"
    sub = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"

    robots = [
        principal("approver", **{oid: "bot"}, idtyp="app"),
        principal("approver", **{oid: "bot", sub: "bot"}),
        principal("approver", **{oid: "bot", sub: "bot"}, sub="bot"),
        principal("approver", **{oid: "bot", sub: None}),
    ]
    assert [behind(web, path, approve, robot)[0] for robot in robots] == [403] * 4
    status, shown = behind(web, path, approve, principal("approver", **{oid: "bob-oid"}))
    assert (status, shown["state"], shown["decided_by"]) == (200, "approved", "bob-oid")


def behind(
    web: HttpCaller, path: str, body: object, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    response = web.send("POST", path, body, headers=headers)
    return response.status_code, response.json or {}


def test_h02_every_operation_asks_for_its_roles_and_every_refused_change_is_written_down(
    web: HttpCaller,
) -> None:
    refused = []
    for operation in EVERY_OPERATION:
        path = f"/api/{operation.path.format(**PARAMETERS)}"
        for role in Role:
            body = BODIES.get(operation.path)
            if body and "decision" in body and role is Role.APPROVER:
                body = {"decision": "refuse"}
            response = web.send(operation.method, path, body, token=web.token(role))
            assert (response.status_code == 403) == (role not in operation.may), operation.name
            if response.status_code == 403 and operation.changes:
                refused.append((operation.name, "refused", {"code": "forbidden"}))
    assert web.send("GET", "/api/backups", token=web.token()).status_code == 403

    events = trail(web)
    found = [(event.action, event.outcome, event.details) for event in events]
    assert [one for one in found if one[2] == {"code": "forbidden"}] == refused
    assert len(refused) == 7  # reader and approver ask for nothing, reader decides nothing
    assert {event.caller for event in events} == {"anna"}
    allowed = {event.action for event in events if event.outcome == "allowed"}
    assert allowed == {"backup.request", "drill.request", "restore.request"}
    assert web.plane.take_jobs(BACKUP_QUEUE) != []


def test_h03_and_h04_what_is_no_strict_json_is_400_and_what_is_large_413(web: HttpCaller) -> None:
    token = web.token("operator")
    bodies = [b"", b"{", b'{"cluster":"demo","cluster":"demo"}', b'{"cluster":NaN}', b"[" * 60_000]
    bodies += [b'{"cluster":"\xff"}', b'{"cluster":"demo","url":"http://169.254.169.254/"}']
    for path in BODIES:
        where = f"/api/{path.format(**PARAMETERS)}"
        for body in bodies:
            response = web.send("POST", where, body, token=token)
            assert response.status_code == 400
            assert b"Traceback" not in response.get_data()
        assert web.send("POST", where, b"{" * 65_537, token=token).status_code == 413
        # Who may not ask is not told how to.
        assert web.send("POST", where, b"{" * 65_537).status_code == 401
    assert trail(web) == []


def test_h03_of_the_ways_to_write_an_id_or_to_say_a_thing_twice_none_is_taken(
    web: HttpCaller,
) -> None:
    asked = web.post("/api/restores", BODIES["restores"])[1]["id"]
    for alias in (f"urn:uuid:{asked}", f"{{{asked}}}", asked.replace("-", ""), f" {asked}"):
        assert web.get(f"/api/restores/{alias}")[0] == 404
    assert web.get(f"/api/restores/{asked.upper()}")[0] == 200
    reader = web.token("reader")
    assert web.send("GET", "/api/backups?limit=1&limit=2", token=reader).status_code == 400
    nowhere = {"host": "["}
    assert web.send("GET", "/api/backups", token=reader, headers=nowhere).status_code in {200, 400}
    for far in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        for where in ("plans", "restores"):
            assert web.post(f"/api/{where}", {**BODIES[where], "to": far})[0] == 400
        assert web.post("/api/drills", {**BACKUP, "target": far})[0] == 400
    _, problem = web.post("/api/plans", {**BACKUP, "label": "x" * 60_000})
    assert len(problem["fact"]) <= 1000


def test_h09_of_many_decisions_at_once_one_counts_and_the_trail_holds_them_all(
    web: HttpCaller,
) -> None:
    path = web.post("/api/restores", BODIES["restores"])[1]["status_url"]
    people = [(f"p{n}", "approver", ("approve", "refuse")[n % 2]) for n in range(8)]
    people += [("anna", "operator", "cancel"), ("anna", "approver", "approve")]

    def decide(who: tuple[str, str, str]) -> int:
        name, role, decision = who
        return web.post(f"{path}/decision", {"decision": decision}, role, name=name)[0]

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(decide, people))

    assert statuses.count(200) == 1
    assert statuses[-1] == 403  # who asked
    state, decided_by = (web.get(path)[1][part] for part in ("state", "decided_by"))
    winner, _, decision = people[statuses.index(200)]
    assert (state[:5], decided_by) == (Decision(decision).state[:5], winner)
    jobs = web.plane.take_jobs(RESTORE_QUEUE)
    assert len(jobs) == (decision == "approve")
    refused = [event for event in trail(web) if event.outcome == "refused"]
    assert len(refused) == len(people) - 1


HOSTILE = ["x'; DROP TABLE job; --", "$(id)", "../../etc/passwd", "demo\n[access]", "a" * 5000]
HOSTILE += ["<script>alert(1)</script>", "%00", "\u202e", "${jndi:ldap://x}", "demo\x00"]


def test_h05_hostile_words_are_refused_or_stored_as_they_are(web: HttpCaller) -> None:
    for word in HOSTILE:
        for field in ("cluster", "target", "label", "to"):
            body = {**BODIES["restores"], field: word}
            assert web.post("/api/restores", body)[0] in {400, 404}
        for parameter in ("cluster", "before", "state", "limit"):
            for path in ("backups", "jobs", "restores"):
                assert web.get(f"/api/{path}", **{parameter: word})[0] == 400
    reason = "'; DELETE FROM restore_request; -- <b>\u202eno</b> ${x} %s {0}"
    _, asked = web.post("/api/restores", BODIES["restores"])
    path = f"/api/restores/{asked['id']}"
    decided = web.post(f"{path}/decision", {"decision": "cancel", "reason": reason})
    assert decided[1]["reason"] == web.get(path)[1]["reason"] == reason
    assert trail(web)[-1].details["reason"] == reason


def test_h06_what_is_not_ours_and_what_does_not_exist_read_alike(web: HttpCaller) -> None:
    name = "stranger"
    asked = [
        *(web.get(f"/api/{path}", cluster=name) for path in ("backups", "wal", "jobs")),
        *(web.get(f"/api/{path}", cluster=name) for path in ("findings", "restores")),
        web.get(f"/api/clusters/{name}"),
        *(web.post(f"/api/{path}", {"cluster": name}) for path in ("backups", "plans", "drills")),
        web.post("/api/restores", {"cluster": name, "target": "scratch"}),
    ]
    told = {(status, problem["code"], problem["fact"]) for status, problem in asked}
    assert told == {(404, "cluster-unknown", "cluster stranger is not known")}
    # A target of another cluster is none, and an id of another kind is none.
    words = [
        web.post("/api/restores", {"cluster": "demo", "target": name}) for name in ("others", "no")
    ]
    assert {re.sub("others|no$", "X", problem["fact"]) for _, problem in words} == {
        "cluster demo has no target X"
    }
    _, backup = web.post("/api/backups", BACKUP)
    _, restore = web.post("/api/restores", BODIES["restores"])
    for kind, other in (
        ("drills", backup["job_id"]),
        ("restores", backup["job_id"]),
        ("jobs", restore["id"]),
    ):
        answers = [web.get(f"/api/{kind}/{one}") for one in (other, "x", PARAMETERS["id"])]
        assert answers[0][0] == 404
        assert answers[0] == answers[1] == answers[2]


def test_h13_and_h15_health_says_one_word_and_no_answer_lets_another_site_in(
    web: HttpCaller,
) -> None:
    origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    web.send("GET", "/api/health", headers=origin)
    web.send("OPTIONS", "/api/backups", headers=origin)
    web.send("GET", "/api/backups", token=web.token("reader"), headers=origin)
    web.send("GET", "/api/backups", headers=origin)
    for response in web.log:
        assert [name for name, _ in response.headers if name.lower().startswith("access-")] == []
    assert web.log[0].json == {"status": "ok"}
    web.plane.catalogue = PostgresCatalogue("host=127.0.0.1 port=1 password=sesame dbname=x")
    web.plane.clock.advance(seconds=5)
    degraded = web.send("GET", "/api/health")
    assert (degraded.status_code, degraded.json) == (200, {"status": "degraded"})
    failed = web.send("GET", "/api/backups", token=web.token("reader"))
    assert failed.status_code == 503
    assert "sesame" not in failed.get_data(as_text=True)


class Unwritable(DirectoryBlobStore):
    """Evidence cannot be stored; everything else can."""

    def create(self, name: BlobName, data: bytes, **metadata: Any) -> Any:
        if name.container == layout.EVIDENCE:
            raise StorageUnavailable("evidence does not answer")
        return super().create(name, data, **metadata)


def test_a_change_that_cannot_be_written_down_is_not_made(web: HttpCaller, tmp_path: Path) -> None:
    _, asked = web.post("/api/restores", BODIES["restores"])
    path = f"/api/restores/{asked['id']}"
    web.plane.repository = replace(web.plane.repository, store=Unwritable(tmp_path / "repository"))

    answers = [
        web.post("/api/backups", BACKUP),
        web.post("/api/drills", BACKUP),
        web.post("/api/restores", BODIES["restores"]),
        web.post(f"{path}/decision", {"decision": "approve"}, "approver", name="bob"),
    ]

    assert [status for status, _ in answers] == [503] * 4
    assert web.get(path)[1]["state"] == "requested"
    assert len(web.get("/api/restores")[1]["restores"]) == 1
    assert web.get("/api/jobs")[1]["jobs"] == []
