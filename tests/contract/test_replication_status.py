"""How far the second region is: the secondary endpoint says so, or a file in its place."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from local.azurite import EmulatedAccount
from shared import adapters
from shared.domain.replication import GeoReplication, ReplicationState
from shared.errors import StorageDenied
from shared.repository.azure_replication_status import open_replication_status
from shared.repository.recorded_replication_status import RecordedReplicationStatus
from shared.repository.replication_status import ReplicationStatus, ReplicationUnknown
from shared.settings import AzureRepository, DirectoryRepository

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class Told:
    """Something that tells of replication, and how to make it say so."""

    status: ReplicationStatus
    say: Callable[[str, datetime | None], None]


@dataclass
class StatsEndpoint:
    """The secondary of an account, as the REST reference words its answer; knows nothing else."""

    state: str = "live"
    time: datetime | None = None
    refusal: str = ""

    def answer(self) -> tuple[int, str]:
        if self.refusal:
            return 403, f"<Error><Code>{self.refusal}</Code><Message>no</Message></Error>"
        time = f"{self.time:%a, %d %b %Y %H:%M:%S GMT}" if self.time else ""
        inner = f"<Status>{self.state}</Status><LastSyncTime>{time}</LastSyncTime>"
        whole = f"<StorageServiceStats><GeoReplication>{inner}</GeoReplication>"
        return 200, f"{whole}</StorageServiceStats>"


@pytest.fixture
def endpoint() -> StatsEndpoint:
    return StatsEndpoint()


@pytest.fixture
def secondary_url(endpoint: StatsEndpoint) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = "/account-secondary/?restype=service&comp=stats"
            status, text = endpoint.answer() if self.path == wanted else (400, "")
            body = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            if endpoint.refusal:
                self.send_header("x-ms-error-code", endpoint.refusal)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        yield f"http://127.0.0.1:{server.server_port}/account-secondary"
        server.shutdown()


@pytest.fixture(params=["azure", "recorded"])
def told(
    request: pytest.FixtureRequest, endpoint: StatsEndpoint, secondary_url: str, tmp_path: Path
) -> Told:
    if request.param == "azure":

        def answer(state: str, time: datetime | None) -> None:
            endpoint.state, endpoint.time = state, time

        credential = EmulatedAccount("account", "AAAA", "", "", None).credential
        return Told(open_replication_status(secondary_url, credential), answer)
    file = tmp_path / "replication.json"

    def write(state: str, time: datetime | None) -> None:
        text = time and time.isoformat()
        file.write_text(json.dumps({"status": state, "last_sync_time": text}), "utf-8")

    return Told(RecordedReplicationStatus(file), write)


@pytest.mark.parametrize(
    ("state", "time"),
    [("live", NOON), ("bootstrap", None), ("unavailable", NOON), ("unavailable", None)],
)
def test_state_and_last_sync_time_are_told(told: Told, state: str, time: datetime | None) -> None:
    told.say(state, time)
    assert told.status.read() == GeoReplication(ReplicationState(state), time)


def test_each_reading_asks_anew(told: Told) -> None:
    told.say("live", NOON)
    first = told.status.read().last_sync_time
    told.say("live", NOON + timedelta(minutes=5))
    assert (first, told.status.read().last_sync_time) == (NOON, NOON + timedelta(minutes=5))


def test_a_state_that_nobody_knows_is_unknown(told: Told) -> None:
    told.say("asleep", NOON)
    with pytest.raises(ReplicationUnknown):
        told.status.read()


def test_an_account_whose_secondary_cannot_be_read_refuses(
    endpoint: StatsEndpoint, secondary_url: str
) -> None:
    endpoint.refusal = "InsufficientAccountPermissions"
    credential = EmulatedAccount("account", "AAAA", "", "", None).credential
    with pytest.raises(StorageDenied, match="blobServices/read"):
        open_replication_status(secondary_url, credential).read()


@pytest.mark.parametrize("text", [None, "no json", '{"last_sync_time": "2026-11-22T12:00:00Z"}'])
def test_a_record_that_says_nothing_is_unknown(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "replication.json"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(ReplicationUnknown, match=r"replication\.json"):
        RecordedReplicationStatus(file).read()


def test_the_settings_choose_who_tells(azurite_account: EmulatedAccount, tmp_path: Path) -> None:
    repository = AzureRepository.model_validate(
        {
            "account_url": azurite_account.blob_url,
            "credential": {"kind": "emulator-key", "account_key": azurite_account.key},
            "secondary_url": "auto",
        }
    )
    assert repository.secondary_url == f"{azurite_account.blob_url}-secondary"
    service = adapters.replication_status(repository)
    assert service is not None
    assert service.read().state is ReplicationState.LIVE  # of the emulator's own secondary

    record = tmp_path / "replication.json"
    recorded = repository.model_copy(update={"replication_record": record})
    assert isinstance(adapters.replication_status(recorded), RecordedReplicationStatus)
    alone = repository.model_copy(update={"secondary_url": None})
    assert adapters.replication_status(alone) is None
    assert adapters.secondary_store(alone, 1) is None
    assert adapters.replication_status(DirectoryRepository(type="directory", path=tmp_path)) is None


def test_azure_has_the_account_first_in_the_hosts_name() -> None:
    repository = AzureRepository(
        account_url="https://pgkeepdata.blob.core.windows.net/", secondary_url="auto"
    )
    assert repository.secondary_url == "https://pgkeepdata-secondary.blob.core.windows.net"
