"""Reading the copy in the second region, at the emulator's own secondary endpoint."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from local.azurite import EMULATOR_ACCOUNT, Azurite, EmulatedAccount
from local.free_port import free_port
from local.postgres_server import PostgresServer
from shared.azure_storage.patience import RetryBudget
from shared.domain.cluster import cluster_name
from shared.domain.drill import CheckOutcome
from shared.domain.drill_target import DrillLevel
from shared.errors import NoSecondary
from shared.repository import layout
from shared.repository.azure_blob_store import AzureBlobStore, open_blob_store
from shared.repository.backups import BackupNotFound
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.read_only_store import ReadOnlyStore, StoreReadOnly
from shared.repository.reports import read_report
from tests.harness.worker_services import (
    CLUSTER,
    Site,
    StartRestored,
    dump,
    make_site,
)
from worker.commands.backup import BackupRequest, back_up
from worker.commands.check import check
from worker.commands.drill import DrillRequest, drill
from worker.commands.restore import restore
from worker.commands.secondary import UNSENT, from_secondary
from worker.commands.services import Services
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def account() -> Iterator[EmulatedAccount]:
    """The emulator's own, whose secondary is `devstoreaccount1-secondary`."""
    with Azurite(None) as emulator:
        account = emulator.account(EMULATOR_ACCOUNT)
        with BlobServiceClient(account.blob_url, credential=account.credential) as client:
            for container in layout.CONTAINERS:
                client.create_container(container).close()
        yield account


@pytest.fixture(scope="module")
def primary(
    worker_folder: Path, key_set: KeySet, source_cluster: PostgresServer, account: EmulatedAccount
) -> Site:
    """One backup in Azurite, and settings that know of no secondary."""
    folder = Path(mkdtemp(prefix="from-secondary-", dir=worker_folder))
    made = make_site(folder, key_set, source_cluster, storage=account)
    made.backup()
    return made


@pytest.fixture
def site(primary: Site, place: Path) -> Site:
    """The same repository with a secondary; a record says that everything was replicated."""
    folder = place / "site"
    folder.mkdir()
    site = replace(primary, folder=folder).changed(
        repository={
            "secondary_url": "auto",
            "replication_record": str(folder / "replication.json"),
        },
        drill={"scratch": str(folder / "scratch")},
    )
    replicated(site, HOUR)
    return site


def replicated(site: Site, since_now: timedelta) -> datetime:
    """Let the Last Sync Time be so far from now."""
    reached = site.services().clocks.now().replace(microsecond=0) + since_now
    text = json.dumps({"status": "live", "last_sync_time": reached.isoformat()})
    (site.folder / "replication.json").write_text(text, "utf-8")
    return reached


def lost(site: Site) -> Site:
    """The same site after its primary region went away."""
    repository = site.settings.repository
    assert repository.type == "azure"
    _, _, name = repository.account_url.rpartition("/")
    gone = f"http://127.0.0.1:{free_port()}/{name}"
    return site.changed(
        repository={"account_url": gone, "secondary_url": str(repository.secondary_url)}
    )


@pytest.fixture
def impatient(site: Site, account: EmulatedAccount) -> Iterator[AzureBlobStore]:
    """The primary after it was lost, for who does not wait two minutes for it."""
    repository = lost(site).settings.repository
    assert repository.type == "azure"
    store = open_blob_store(
        repository.account_url, account.credential, retry=RetryBudget(total_s=0.2)
    )
    yield store
    store.close()


def there(site: Site, **changes: Any) -> Services:
    return from_secondary(site.services(**changes))


def test_a_backup_is_restored_from_the_secondary_when_the_primary_is_lost(
    site: Site, place: Path, source_cluster: PostgresServer, start_restored: StartRestored
) -> None:
    newest, away = site.newest(), lost(site)
    target = place / "restored" / "data"
    restored = restore(there(away), site.request(target))
    assert restored.label == newest.label.text
    assert dump(start_restored(target, source_cluster)) == dump(source_cluster)

    done = away.pgkeep("list", "--from-secondary", "--json")
    assert (done.returncode, restored.label in done.stdout) == (0, True)
    assert "read from the secondary, as of Last Sync Time 20" in done.stderr
    done = away.pgkeep(
        "extract", CLUSTER, "PG_VERSION", "--to", str(place / "one"), "--from-secondary"
    )
    assert (done.returncode, (place / "one/PG_VERSION").exists()) == (0, True), done.stderr


def test_a_drill_from_the_secondary_proves_a_backup_and_its_report_goes_home(site: Site) -> None:
    request = DrillRequest(drill_id="d1", level=DrillLevel.DISASTER, from_secondary=True)
    reached = replicated(site, HOUR)
    report = drill(site.services(), site.cluster, request)
    assert report.verdict == "proven", report.reason
    assert (report.level, report.from_secondary) == (DrillLevel.DISASTER, True)
    assert report.last_sync_time == reached

    services = site.services()
    name = layout.drill_report(cluster_name(CLUSTER), "d1")
    assert read_report(services.store, name, services.pinned).report == report
    # The job that is delivered once more finds its report, however far the secondary is.
    replicated(site, -HOUR)
    assert drill(services, site.cluster, request) == report


def test_what_last_sync_time_has_not_passed_is_not_there(site: Site) -> None:
    newest = site.newest()
    replicated(site, -HOUR)
    with pytest.raises(BackupNotFound):
        drill(site.services(), site.cluster, DrillRequest(from_secondary=True))
    (site.folder / "replication.json").unlink()
    services = there(site)  # nobody tells how far it is: all that is there is read
    assert services.elsewhere is not None
    assert services.elsewhere.last_sync_time is None
    assert verify(services, newest).passed


def test_the_secondary_takes_no_backup_though_the_emulator_would(site: Site) -> None:
    before = site.newest()
    with pytest.raises(StoreReadOnly):
        back_up(there(site), site.cluster, BackupRequest())
    assert site.newest() == before


def test_reports_wait_on_this_host_while_the_primary_is_lost(
    primary: Site, site: Site, impatient: AzureBlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgkeep")
    services, ref = there(site, store=impatient), primary.newest()
    report = verify(services, ref, report_id="v1")
    assert report.passed
    unsent = site.settings.drill.scratch / UNSENT / layout.EVIDENCE
    waiting = sorted(str(path.relative_to(unsent)) for path in unsent.rglob("*") if path.is_file())
    assert f"{CLUSTER}/verifications/v1/report.json" in waiting
    assert f"{CLUSTER}/verified/{ref.label}" in " ".join(waiting)
    messages = [record.message for record in caplog.records]
    assert (messages.count("primary-away"), messages.count("report-unsent")) == (1, 2)

    later = there(site, store=impatient)
    assert verify(later, ref, report_id="v1") == report


def test_check_looks_whether_the_secondary_can_be_read(site: Site) -> None:
    reached = replicated(site, HOUR)
    found = {one.name: one for one in check(site.services(), None)}["secondary"]
    assert found.outcome == CheckOutcome.PASSED
    assert f"Last Sync Time {reached:%Y-%m-%dT%H:%M:%SZ}" in found.detail
    gone = DirectoryBlobStore(site.folder / "nothing")
    unread = site.services(secondary=ReadOnlyStore(gone))
    found = {one.name: one for one in check(unread, None)}["secondary"]
    assert found.outcome == CheckOutcome.FAILED


def test_a_repository_without_a_secondary_says_so(primary: Site) -> None:
    with pytest.raises(NoSecondary):
        from_secondary(primary.services())
    done = primary.pgkeep("verify", CLUSTER, "--from-secondary")
    assert (done.returncode, "no-secondary" in done.stderr) == (3, True)
