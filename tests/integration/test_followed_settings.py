"""The function app follows its settings: a real blob, a real catalogue, the app's own wiring."""

import gc
import logging
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from azure.storage.blob import BlobClient, BlobServiceClient

from functions import wiring
from functions.followed_settings import LOOKS_EVERY_S, FollowedSettings, SettingsSource
from functions.settings_marks import settings_mark
from functions.settings_watch import watch_settings
from functions.wiring import Services
from local.azurite import EmulatedAccount
from shared import adapters
from shared.domain.findings import REPOSITORY
from shared.repository import layout
from shared.telemetry.meters import NO_TELEMETRY
from tests.harness.catalogue_server import running_catalogue_server
from tests.harness.control_plane import Clock
from tests.harness.http_fault_proxy import HttpFaultProxy, azure_error

pytestmark = pytest.mark.integration

CLUSTER = '[[cluster]]\nname = "{}"\ndsn = "host=nowhere"\n'
HEADER = ("[repository]", 'type = "azure"')
LOOK = "HEAD .*/settings/pgkeep.toml"


@dataclass
class App:
    """The app's services, as one invocation after the other gets them."""

    proxy: HttpFaultProxy
    blob: BlobClient
    clock: Clock = field(default_factory=Clock)
    ticks: float = 1.0

    def upload(self, *lines: str) -> None:
        self.blob.upload_blob("\n".join([*HEADER, *lines]).encode(), overwrite=True)

    def invoked(self) -> Services:
        """So much later that the document is looked at."""
        self.ticks += LOOKS_EVERY_S
        return wiring.services()

    def watched(self, **step: float) -> list[str]:
        """What is open once timer_freshness has looked."""
        self.clock.advance(**step)
        services = replace(self.invoked(), clock=self.clock)
        watch_settings(services)
        open_now = services.catalogue.findings(REPOSITORY)
        return [one.finding.fact for one in open_now if one.closed_at is None]


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with running_catalogue_server() as server:
        yield server.database()


@pytest.fixture
def app(
    dsn: str, fresh_azurite_account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch
) -> Iterator[App]:
    account = fresh_azurite_account
    proxy = HttpFaultProxy(account.blob_url)
    for name, value in {
        "PGKEEP_CONFIG": f"{proxy.url}/settings/pgkeep.toml",
        "PGKEEP_IDENTITY__KIND": "emulator-key",
        "PGKEEP_IDENTITY__ACCOUNT_KEY": account.credential.named_key.key,
        "PGKEEP_REPOSITORY__ACCOUNT_URL": account.blob_url,
        "PGKEEP_QUEUES__ACCOUNT_URL": account.queue_url,
        "PGKEEP_CATALOGUE__DSN": dsn,
    }.items():
        monkeypatch.setenv(name, value)
    with BlobServiceClient(account.blob_url, credential=account.credential) as client:
        for container in ("settings", layout.WAL):
            client.create_container(container)
        made = App(proxy, client.get_blob_client("settings", "pgkeep.toml"))
        made.upload(CLUSTER.format("orders"))
        source = SettingsSource(settings_mark(os.environ), adapters.load_settings)
        followed = FollowedSettings(source, wiring._wired, made.clock, lambda: made.ticks)
        monkeypatch.setattr(wiring, "_followed", lambda: followed)
        monkeypatch.setattr(wiring, "_observe", lambda: NO_TELEMETRY)
        yield made
    proxy.close()


def names(services: Services) -> list[str]:
    return [cluster.name for cluster in services.settings.cluster]


def test_an_uploaded_document_takes_effect_by_itself_and_running_invocations_keep_theirs(
    app: App,
) -> None:
    running = app.invoked()
    app.upload(CLUSTER.format("orders"), CLUSTER.format("billing"))
    assert names(app.invoked()) == ["orders", "billing"]
    assert names(running) == ["orders"]
    assert list(running.store.list(layout.WAL)) == []  # its connections are open still


def test_what_was_replaced_is_closed_when_the_last_invocation_lets_it_go(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    close = wiring._close
    monkeypatch.setattr(wiring, "_close", lambda *clients: closed.extend(clients))
    running = app.invoked()
    clients = [running.store, running.events, *running.queues.values()]
    gone = weakref.ref(running)
    app.upload(CLUSTER.format("billing"))
    app.invoked()
    assert closed == []
    del running
    gc.collect()
    assert gone() is None
    assert closed == clients
    close(*clients)


def test_an_unchanged_document_costs_one_small_request_a_look(app: App) -> None:
    app.invoked()
    before = len(app.proxy.requests)
    first = wiring.services()
    for _ in range(3):
        assert app.invoked() is first
        assert wiring.services() is first
    assert app.proxy.seen(LOOK) == len(app.proxy.requests) - before + 1
    assert len(app.proxy.requests) - before == 3


def test_an_invalid_document_is_a_finding_with_key_and_line_and_stops_nothing(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgkeep")
    first = app.invoked()
    assert app.watched() == []
    app.upload("[fleet]", "per_host = 'many'")
    [fact] = app.watched()
    assert "line 4: fleet.per_host" in fact
    assert app.invoked() is first
    assert app.watched(minutes=5) == [fact]
    app.upload(CLUSTER.format("billing"))
    assert app.watched(minutes=5) == []
    assert names(wiring.services()) == ["billing"]
    told = [record.message for record in caplog.records]
    assert [name for name in told if name != "catalogue-migrated"] == [
        "settings-not-followed",
        "finding-opened",
        "settings-followed",
        "finding-closed",
    ]


def test_a_document_that_vanished_is_a_finding_until_it_is_back(app: App) -> None:
    first = app.invoked()
    text = app.blob.download_blob().readall()
    app.blob.delete_blob()
    [fact] = app.watched()
    assert "cannot read" in fact
    app.blob.upload_blob(text)
    assert app.watched() == []
    assert app.invoked() is first


def test_storage_that_is_down_stops_nothing_and_is_a_finding_only_when_it_lasts(app: App) -> None:
    first = app.invoked()
    with app.proxy.outage():
        assert app.watched() == []
        assert app.watched(minutes=11) != []
        assert wiring.services() is first
    assert app.watched() == []


def test_a_document_that_may_no_longer_be_read_is_a_finding_at_once(app: App) -> None:
    app.invoked()
    app.proxy.script(azure_error("HEAD", 403, "AuthorizationPermissionMismatch"))
    assert len(app.watched()) == 1
    assert app.watched() == []
