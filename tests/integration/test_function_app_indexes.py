"""The function app indexes and answers under Microsoft's own runtime, as it will in Azure.

One bad function makes the host refuse the whole app, so a mistake must show here.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness.catalogue_server import running_catalogue_server

ROOT = Path(__file__).parents[2]
RUNTIME = Path(sys.prefix) / "functions-runtime"
WORKER = ROOT / "tests" / "harness" / "functions_worker.py"

pytestmark = pytest.mark.integration

Call = Mapping[str, Any]

TENANT = "11111111-2222-3333-4444-555555555555"
_CLAIMS = {"aud": "api-id", "tid": TENANT, "oid": "anna", "roles": "reader"}
_PRINCIPAL = {
    "auth_typ": "aad",
    "claims": [{"typ": name, "val": value} for name, value in _CLAIMS.items()],
}
READER = {
    "headers": {"x-ms-client-principal": base64.b64encode(json.dumps(_PRINCIPAL).encode()).decode()}
}


def run_worker(
    app: Path, calls: Sequence[Call] = (), environment: Mapping[str, str] | None = None
) -> Any:
    """Index `app` in a process that cannot see this project's tests, and make the calls."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("P")}
    done = subprocess.run(
        [sys.executable, "-P", str(WORKER), str(RUNTIME), str(app)],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=120,
        env={**clean, "PATH": os.environ["PATH"], **(environment or {})},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def get(function: str, path: str, **more: Any) -> Call:
    http = {"method": "GET", "url": f"http://localhost/api/{path}", **more}
    return {"function": function, "binding": "req", "http": http}


@pytest.fixture(scope="module")
def indexed() -> Any:
    return run_worker(ROOT)


class TestOurApp:
    def test_it_is_accepted_with_every_function_named_like_its_file(self, indexed: Any) -> None:
        files = {
            path.stem
            for pattern in ("timer_*.py", "blob_*.py", "queue_*.py", "http_*.py")
            for path in (ROOT / "functions").glob(pattern)
        } - {"http_protocol"}

        assert indexed["refused"] is None
        assert set(indexed["functions"]) == files

    def test_triggers_and_settings_are_the_ones_that_docs_and_infrastructure_name(
        self, indexed: Any
    ) -> None:
        triggers = {name: bindings[0] for name, bindings in indexed["functions"].items()}
        wanted: dict[str, dict[str, Any]] = {
            "timer_dispatch": {"type": "timerTrigger", "schedule": "%PGKEEP_DISPATCH_SCHEDULE%"},
            "timer_freshness": {"type": "timerTrigger", "schedule": "%PGKEEP_FRESHNESS_SCHEDULE%"},
            "timer_reconcile": {"type": "timerTrigger", "schedule": "%PGKEEP_RECONCILE_SCHEDULE%"},
            "blob_backup_committed": {
                "type": "blobTrigger",
                "source": "EventGrid",
                "path": "full/{cluster}/{label}/backup.json",
                "connection": "PGKEEP_HOST_REPOSITORY",
            },
            "blob_incremental_committed": {
                "type": "blobTrigger",
                "source": "EventGrid",
                "path": "incremental/{cluster}/{label}/backup.json",
                "connection": "PGKEEP_HOST_REPOSITORY",
            },
            "queue_job_event": {
                "type": "queueTrigger",
                "queueName": "pgkeep-events",
                "connection": "PGKEEP_HOST_QUEUES",
            },
            "queue_wal_event": {
                "type": "queueTrigger",
                "queueName": "pgkeep-wal-events",
                "connection": "PGKEEP_HOST_QUEUES",
            },
            "queue_poison_events": {
                "queueName": "pgkeep-events-poison",
                "connection": "PGKEEP_HOST_QUEUES",
            },
            "queue_poison_wal_events": {
                "queueName": "pgkeep-wal-events-poison",
                "connection": "PGKEEP_HOST_QUEUES",
            },
            "queue_poison_backup": {
                "queueName": "pgkeep-backup-poison",
                "connection": "PGKEEP_HOST_QUEUES",
            },
            "queue_poison_blobs": {
                "queueName": "webjobs-blobtrigger-poison",
                "connection": "PGKEEP_HOST_REPOSITORY",
            },
            "http_backups": {"route": "backups", "authLevel": "ANONYMOUS"},
            "http_restores": {"route": "restores/{id?}", "authLevel": "ANONYMOUS"},
            "http_restore_decision": {"route": "restores/{id}/decision", "methods": ["POST"]},
            "http_wal": {"route": "wal", "authLevel": "ANONYMOUS", "methods": ["GET"]},
            "http_health": {"route": "health", "authLevel": "ANONYMOUS", "methods": ["GET"]},
        }
        for name, fields in wanted.items():
            assert {key: triggers[name].get(key) for key in fields} == fields

    def test_it_answers_over_its_real_wiring(self, tmp_path: Path) -> None:
        with running_catalogue_server() as server:
            environment = settings(tmp_path, server.database())
            answers = run_worker(
                ROOT,
                [
                    get("http_health", "health"),
                    get("http_backups", "backups", query={"cluster": "demo"}, **READER),
                    get("http_drills", "drills/x", params={"id": "x"}, **READER),
                    get("http_wal", "wal", query={"cluster": "demo"}, **READER),
                    get("http_clusters", "clusters/demo", params={"name": "demo"}, **READER),
                    get("http_openapi", "openapi.json", **READER),
                    get("http_backups", "backups"),
                ],
                environment,
            )["answers"]

        assert [answer["raised"] for answer in answers] == [None] * 7
        statuses = [answer["status"] for answer in answers]
        assert statuses == ["200", "200", "404", "200", "200", "200", "401"]
        assert json.loads(answers[0]["body"]) == {"status": "ok"}
        assert json.loads(answers[1]["body"]) == {"backups": []}
        assert json.loads(answers[2]["body"])["code"] == "job-not-found"
        [shown] = json.loads(answers[3]["body"])["clusters"]
        assert (shown["cluster"], shown["freshness"], shown["findings"]) == ("demo", None, [])
        assert json.loads(answers[4]["body"])["cluster"] == "demo"
        assert json.loads(answers[5]["body"])["openapi"] == "3.1.0"

    def test_without_a_catalogue_health_is_degraded_and_nothing_leaks(self, tmp_path: Path) -> None:
        environment = settings(tmp_path, "host=127.0.0.1 port=1 password=sesame dbname=x")

        answers = run_worker(
            ROOT, [get("http_health", "health"), get("http_backups", "backups")], environment
        )["answers"]

        assert [answer["status"] for answer in answers] == ["200", "503"]
        assert json.loads(answers[0]["body"]) == {"status": "degraded"}
        assert json.loads(answers[1]["body"])["code"] == "catalogue-unavailable"
        assert "sesame" not in json.dumps(answers)
        assert "127.0.0.1" not in json.dumps(answers)

    def test_a_queue_message_that_is_no_event_raises_so_that_the_host_sets_it_aside(
        self, tmp_path: Path
    ) -> None:
        call = {"function": "queue_job_event", "binding": "message", "string": "{"}
        with running_catalogue_server() as server:
            [answer] = run_worker(ROOT, [call], settings(tmp_path, server.database()))["answers"]

        assert answer["raised"].startswith("MessageInvalid: message-invalid")


def settings(directory: Path, dsn: str) -> Mapping[str, str]:
    """An app whose repository is a directory; the host's own connections are not in play."""
    (directory / "pgkeep.toml").write_text(
        f"""
        [repository]
        type = "directory"
        path = "{directory / "repository"}"
        [queues]
        account_url = "http://127.0.0.1:1/devstoreaccount1"
        credential = {{ kind = "emulator-key", account_key = "a2V5" }}
        [catalogue]
        dsn = "{dsn}"
        [access]
        type = "easy-auth"
        tenant_id = "{TENANT}"
        audiences = ["api-id"]
        [[cluster]]
        name = "demo"
        dsn = "host=nowhere"
        """
    )
    return {
        "WEBSITE_AUTH_ENABLED": "True",
        "PGKEEP_CONFIG": str(directory / "pgkeep.toml"),
        # The host's connections and schedules lie beside our settings and must not be read as such.
        "PGKEEP_HOST_REPOSITORY__blobServiceUri": "https://x.blob.core.windows.net",
        "PGKEEP_HOST_QUEUES__queueServiceUri": "https://x.queue.core.windows.net",
        "PGKEEP_DISPATCH_SCHEDULE": "0 * * * * *",
    }


BAD_FUNCTIONS = {
    "two functions of one name": """
@app.timer_trigger("timer", schedule="0 * * * * *")
def tick(timer: func.TimerRequest) -> None: ...
again = func.Blueprint()
@again.timer_trigger("timer", schedule="0 * * * * *")
def tick(timer: func.TimerRequest) -> None: ...
app.register_functions(again)
""",
    "a parameter that no binding fills, though it has a default": """
@app.timer_trigger("timer", schedule="0 * * * * *")
def tick(timer: func.TimerRequest, clock=None) -> None: ...
""",
    "a return type that is a union": """
@app.route("x")
def answer(req: func.HttpRequest) -> func.HttpResponse | None: ...
""",
    "an annotation of another trigger": """
@app.timer_trigger("timer", schedule="0 * * * * *")
def tick(timer: func.HttpRequest) -> None: ...
""",
    "two function apps": "other = func.FunctionApp()\n",
    "an import that fails": "import no_such_module_anywhere\n",
}
GOOD_FUNCTION = """
import azure.functions as func
app = func.FunctionApp()
@app.route("good")
def good(req: func.HttpRequest) -> func.HttpResponse: ...
"""


class TestTheTestItself:
    def test_a_sound_app_is_accepted(self, tmp_path: Path) -> None:
        (tmp_path / "function_app.py").write_text(GOOD_FUNCTION)
        assert run_worker(tmp_path)["refused"] is None

    @pytest.mark.parametrize("planted", BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS.keys())
    def test_a_bad_function_makes_the_whole_app_refused(self, tmp_path: Path, planted: str) -> None:
        (tmp_path / "function_app.py").write_text(GOOD_FUNCTION + planted)

        outcome = run_worker(tmp_path)

        assert outcome["refused"]
        assert outcome["functions"] == {}
