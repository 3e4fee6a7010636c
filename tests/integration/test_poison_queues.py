"""Poison queues have readers: the whole app on the local host, storage emulated, catalogue real."""

import base64
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from azure.storage.queue import QueueServiceClient

from local.azurite import EmulatedAccount
from local.configuration import host_settings
from local.processes import program
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.findings import REPOSITORY
from shared.jobs.messages import JOB_QUEUES, POISON, QUEUES
from tests.harness.catalogue_server import running_catalogue_server
from tests.harness.deadline import wait_until
from tests.harness.worker_services import CHECKOUT

pytestmark = pytest.mark.integration

POISON_QUEUES = {
    *(name if name.endswith(POISON) else name + POISON for name in QUEUES),
    "webjobs-blobtrigger-poison",
}
# Nothing but queues shall move here.
NEVER = "0 0 0 1 1 *"
SCHEDULES = {f"PGKEEP_{name}_SCHEDULE": NEVER for name in ("DISPATCH", "FRESHNESS", "RECONCILE")}


@pytest.fixture
def catalogue(tmp_path: Path, azurite_account: EmulatedAccount) -> Iterator[PostgresCatalogue]:
    """Of an app that is up."""
    with running_catalogue_server() as server:
        dsn = server.database()
        (tmp_path / "pgkeep.toml").write_text(
            f"""
            [repository]
            type = "directory"
            path = "{tmp_path / "repository"}"
            [queues]
            account_url = "{azurite_account.queue_url}"
            credential = {{ kind = "emulator-key", account_key = "{azurite_account.key}" }}
            [catalogue]
            dsn = "{dsn}"
            [[cluster]]
            name = "demo"
            dsn = "host=nowhere"
            """
        )
        settings = tmp_path / "local.settings.json"
        settings.write_text(host_settings(tmp_path / "pgkeep.toml", azurite_account, SCHEDULES))
        state = tmp_path / "state"
        words = ["--app", str(CHECKOUT), "--settings", str(settings), "--state", str(state)]
        command = [sys.executable, "-m", "local.functions_host", *words]
        with program(command, tmp_path / "host.log") as host:
            host.wait_for_text(state / "url", 60)
            yield PostgresCatalogue(dsn)


def test_d06_s08_whatever_lies_in_a_poison_queue_becomes_a_finding(
    catalogue: PostgresCatalogue, azurite_account: EmulatedAccount
) -> None:
    began = datetime(2020, 1, 1, tzinfo=UTC)
    bodies = (b"{", b"\xff\0\xfe", b"x" * 40_000)
    with QueueServiceClient(azurite_account.queue_url, azurite_account.credential) as service:
        for name in POISON_QUEUES:
            with service.create_queue(name) as queue:
                for body in bodies:
                    queue.send_message(base64.b64encode(body).decode())

    def told() -> bool:
        found = {(one.cluster, one.finding.object) for one in catalogue.findings()}
        return found == {(REPOSITORY, name) for name in POISON_QUEUES}

    assert len(POISON_QUEUES) == len(JOB_QUEUES) + 3
    wait_until(told, 60, "each queue has its finding")
    everything = len(POISON_QUEUES) * len(bodies)
    wait_until(
        lambda: len(catalogue.set_aside_since(began, "message-poisoned")) == everything,
        60,
        "every message is set aside",
    )
