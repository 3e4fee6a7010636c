"""The product's main job end to end: timer, blob event, HTTP drill, on real parts, no function
called by hand. The stack is the one of `python -m local`, with a small database and quick timers.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from local import stack, stack_directory
from local.configuration import CLUSTER, DATABASE
from local.demo_client import FunctionAppRefused, call
from local.document_database.heartbeat import beating
from local.document_database.load import load
from local.processes import CHECKOUT
from local.stack import Edges, Servers
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.settings import load as load_settings
from tests.harness.deadline import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIMIT_S = 90
SCHEDULES = {
    "PGKEEP_DISPATCH_SCHEDULE": "* * * * * *",
    "PGKEEP_FRESHNESS_SCHEDULE": "*/2 * * * * *",
    "PGKEEP_RECONCILE_SCHEDULE": "*/3 * * * * *",
}


@dataclass(frozen=True)
class RunningStack:
    servers: Servers
    edges: Edges

    def http(self, method: str, path: str, body: object = None) -> Any:
        return call(self.edges.url, self.edges.token(), method, path, body)

    def backups(self) -> list[dict[str, Any]]:
        """As the function app lists them; none while it cannot."""
        try:
            found: list[dict[str, Any]] = self.http("GET", "/api/backups")["backups"]
        except FunctionAppRefused:
            return []
        return found

    def pgkeep(self, *arguments: str) -> dict[str, Any]:
        """A verb on the command line, with --json."""
        command = [sys.executable, "-m", "worker", *arguments, "--json"]
        done = subprocess.run(
            [*command, "--config", str(self.servers.config)],
            check=False,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def listed(self, label: str, **facts: object) -> bool:
        """Whether the catalogue lists the backup with these facts."""
        return any(
            item["label"] == label and all(item[name] == value for name, value in facts.items())
            for item in self.backups()
        )


@pytest.fixture(scope="module")
def running() -> Iterator[RunningStack]:
    folder = Path(tempfile.mkdtemp(prefix="pgkeep-test-"))
    folder.chmod(0o755)
    with ExitStack() as parts:
        parts.callback(shutil.rmtree, folder)
        directory = parts.enter_context(stack_directory.claimed(folder / "stack"))
        servers = parts.enter_context(stack.running_servers(directory))
        load(servers.source.dsn(DATABASE), 8)
        parts.enter_context(beating(servers.source.dsn(DATABASE)))
        edges = parts.enter_context(stack.running_edges(directory, servers, SCHEDULES))
        yield RunningStack(servers, edges)


@pytest.fixture(scope="module")
def first_label(running: RunningStack) -> str:
    """Of the backup that the timer started by itself, once its upload event had it verified."""
    wait_until(
        lambda: any(item["verified"] for item in running.backups()),
        LIMIT_S,
        "the timer's backup is verified",
    )
    return str(running.backups()[0]["label"])


def test_the_timer_backs_up_the_event_verifies_and_nothing_is_proven_yet(
    running: RunningStack, first_label: str
) -> None:
    (backup,) = running.backups()
    assert backup["label"] == first_label
    assert backup["cluster"] == CLUSTER
    assert backup["proven"] is False
    assert backup["findings"] == []


def test_what_was_committed_is_soon_known_to_be_protected(
    running: RunningStack, first_label: str
) -> None:
    """The receiver archives and reports, the queue's function records, the timer judges."""

    def watched() -> dict[str, Any]:
        [found] = running.http("GET", f"/api/wal?cluster={CLUSTER}")["clusters"]
        assert isinstance(found, dict)
        return found

    running.servers.source.query("create table watched ()", DATABASE)
    [(committed,)] = running.servers.source.query("select clock_timestamp()", DATABASE)

    def is_protected() -> bool:
        seen = watched()["freshness"]
        at = seen and seen["protected_at"]
        return bool(at) and datetime.fromisoformat(at) >= committed

    wait_until(is_protected, LIMIT_S, "the commit is known to be protected")
    found = watched()
    assert found["findings"] == []
    assert [writer["writer"] for writer in found["writers"]] == ["receive"]
    assert found["freshness"]["slot"]["active"] is True


def test_a_drill_over_http_proves_the_backup(running: RunningStack, first_label: str) -> None:
    asked = running.http("POST", "/api/drills", {"cluster": CLUSTER, "label": first_label})

    def report() -> Any:
        return running.http("GET", asked["status_url"])["report"]

    wait_until(lambda: report() is not None, LIMIT_S, "the drill has reported")
    found = report()
    assert found["verdict"] == "proven", found["reason"]
    assert {check["name"]: check["outcome"] for check in found["checks"]} == {
        "opens": "passed",
        "row_counts": "passed",
        "collations": "passed",
        "pg_amcheck": "passed",
        "validation_sql": "passed",
        "page_checksums": "passed",
    }
    assert {table["kind"] for table in found["tables"]} == {"equal"}
    wait_until(
        lambda: running.listed(first_label, proven=True), LIMIT_S, "the backup is listed as proven"
    )


def test_a_drill_to_the_latest_replays_received_wal_and_measures_what_would_be_lost(
    running: RunningStack, first_label: str
) -> None:
    asked = {"cluster": CLUSTER, "label": first_label, "target": "latest"}
    status_url = running.http("POST", "/api/drills", asked)["status_url"]

    def report() -> Any:
        return running.http("GET", status_url)["report"]

    wait_until(lambda: report() is not None, LIMIT_S, "the drill has reported")
    found = report()
    assert found["verdict"] == "proven", found["reason"]
    assert found["replayed_bytes"] > 0
    # A heartbeat a second, stored within a second; the rest is for a machine with other work.
    assert found["rpo_ms"] < 15_000


def test_a_backup_asked_for_over_http_is_taken_once(running: RunningStack) -> None:
    before = len(running.backups())
    asked = running.http("POST", "/api/backups", {"cluster": CLUSTER})
    wait_until(lambda: len(running.backups()) > before, LIMIT_S, "the backup is listed")
    document = running.pgkeep("show", CLUSTER)
    assert document["job_id"] == asked["job_id"]
    assert len(running.backups()) == before + 1


def test_a_backup_goes_on_while_the_catalogue_is_down(
    running: RunningStack, first_label: str
) -> None:
    running.servers.catalogue.stop()
    label = str(running.pgkeep("backup", CLUSTER)["label"])
    assert running.backups() == []
    running.servers.catalogue.start()
    wait_until(
        lambda: running.listed(label, verified=True),
        LIMIT_S,
        "the backup of the outage is catalogued and verified",
    )


def test_the_catalogue_is_rebuilt_to_the_same_content(
    running: RunningStack, first_label: str
) -> None:
    wait_until(
        lambda: all(item["verified"] for item in running.backups()), LIMIT_S, "all are verified"
    )
    section = load_settings(running.servers.config, {}).catalogue
    assert section is not None
    catalogue = PostgresCatalogue(section.dsn.get_secret_value())
    before = catalogue.content()
    running.servers.catalogue.query("truncate backup, verification, drill", "catalogue")
    assert catalogue.content() != before
    assert running.pgkeep("catalogue", "rebuild")["refused"] == []
    assert catalogue.content() == before
