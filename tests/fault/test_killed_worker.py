"""SIGKILL at every commit point (B07, R14): nothing half-done is visible, the next run is clean."""

from pathlib import Path
from signal import SIGKILL

import pytest

from local.postgres_server import PostgresServer
from shared.repository.backups import list_backups
from shared.repository.blob_store import BlobName
from tests.harness.deadline import wait_until
from tests.harness.killed_worker import run_and_kill
from tests.harness.worker_services import (
    Site,
    StartRestored,
    WatchedStore,
    startable,
    verify_with_postgres,
)
from worker.commands.verify import verify

pytestmark = [pytest.mark.integration, pytest.mark.fault]


def commits_of_a_backup(site: Site) -> list[BlobName]:
    watched = WatchedStore(site.services().store)
    site.backup(store=watched)
    return watched.committed


def test_a_backup_killed_at_any_commit_leaves_nothing_visible_and_no_lock(site: Site) -> None:
    commits = commits_of_a_backup(site)
    assert commits[-1].path.endswith("/backup.json"), "the document is the last commit"
    assert len([name for name in commits if "/base." in name.path]) > 1, "several volumes"
    store = site.services().store
    visible = list(list_backups(store))
    moments = [("before", 0), *(("after", number) for number in range(len(commits) - 2))]
    for moment, number in [*moments, ("before", len(commits) - 2)]:
        # The cluster is registered already, so later runs commit one document less.
        assert run_and_kill(site, "backup", moment, number) == -SIGKILL, (moment, number)
        assert list(list_backups(store)) == visible, (moment, number)
    after = site.backup()
    assert after.document.counter == len(visible) + 1
    assert verify(site.services(), site.newest()).passed


def test_a_backup_killed_right_after_its_document_is_whole(site: Site) -> None:
    last = len(commits_of_a_backup(site)) - 2
    assert run_and_kill(site, "backup", "after", last) == -SIGKILL
    assert len(list(list_backups(site.services().store))) == 2
    assert verify(site.services(), site.newest()).passed
    assert site.backup().document.counter == 3


@pytest.mark.parametrize("read", [3, 8, 14])
def test_a_restore_that_was_killed_cannot_be_started_and_can_be_run_again(
    committed_site: Site,
    place: Path,
    source_cluster: PostgresServer,
    start_restored: StartRestored,
    read: int,
) -> None:
    data = place / "restored" / "data"
    assert run_and_kill(committed_site, "restore", "during", read, data) == -SIGKILL
    assert not startable(data)
    if data.exists():
        assert (data / "RESTORE_INCOMPLETE").exists()
    committed_site.restore(data)
    assert startable(data)
    assert verify_with_postgres(source_cluster.programs, data) == ""
    server = start_restored(data, source_cluster)
    wait_until(
        lambda: server.query("select pg_is_in_recovery()") == [(False,)], 30, "recovery is over"
    )
