"""Backups that are read from a standby: what they restore to, and what may come between."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer
from shared.domain.backup import BackupKind, BackupSource
from shared.errors import StandbyPromoted
from shared.repository.backups import list_backups
from shared.repository.blob_store import BlobName
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster, make_standby
from tests.harness.standby_pair import LIMIT_S, Pair, standby_pair
from tests.harness.worker_services import (
    Site,
    StartRestored,
    WatchedStore,
    dump,
    verify_with_postgres,
)
from worker.commands import backup_source
from worker.commands.backup import BackupOutcome, BackupRequest, back_up
from worker.commands.backup_stream import SystemChanged
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

FIRST_WITH_INCREMENTALS = 17


@pytest.fixture
def pair(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    """A primary that idles now and then writes a record that is worth no checkpoint."""
    monkeypatch.setattr(backup_source, "RESTARTPOINT_PATIENCE_S", 0.5)
    with standby_pair(make_cluster, key_set, place) as made:
        yield made


def incremental(site: Site) -> BackupOutcome:
    request = BackupRequest(BackupKind.INCREMENTAL)
    return back_up(site.changed().services(), site.cluster, request)


def restored(pair: Pair, folder: Path, start_restored: StartRestored) -> PostgresServer:
    """A server on the newest backup, after PostgreSQL's own look at the directory."""
    folder.mkdir(mode=0o711)
    data = folder / "data"
    pair.site.restore(data)
    assert not (data / "standby.signal").exists()
    assert verify_with_postgres(pair.primary.programs, data) == ""
    server = start_restored(data, pair.primary)
    wait_until(lambda: server.is_open, LIMIT_S, "recovery has ended")
    return server


@pytest.mark.postgres
@pytest.mark.slow
def test_a_chain_of_a_standby_goes_on_with_the_primary_and_restores(
    pair: Pair, place: Path, start_restored: StartRestored
) -> None:
    """Trap 58, too: of a standby that has replayed no checkpoint since, only a full is possible."""
    full = pair.site.backup().document
    assert full.source is BackupSource.STANDBY
    at_once = incremental(pair.site).document
    assert at_once.kind is BackupKind.FULL
    assert at_once.instead_of_incremental is not None
    if pair.primary.major >= FIRST_WITH_INCREMENTALS:
        assert at_once.instead_of_incremental.code == "standby-idle"

    pair.primary.query("UPDATE kept SET n = -n WHERE n % 100 = 0")
    pair.primary.query("CREATE TABLE late AS SELECT n FROM generate_series(1, 5000) n")
    pair.checkpoint()
    last = incremental(pair.site).document
    assert last.source is BackupSource.STANDBY
    if pair.primary.major >= FIRST_WITH_INCREMENTALS:
        assert last.kind is BackupKind.INCREMENTAL
        assert last.parent is not None
        assert last.parent.label == at_once.label
        assert last.stored_size < full.stored_size / 2
        assert last.timeline == 1

    pair.primary.query("DELETE FROM late WHERE n > 4000")
    pair.standby.stop()
    outcome = incremental(pair.site)
    assert outcome.document.source is BackupSource.PRIMARY
    assert "cannot connect" in (outcome.source_reason or "")
    assert outcome.document.kind is last.kind
    assert verify(pair.site.services(), pair.site.newest()).passed
    server = restored(pair, place / "restored", start_restored)
    assert dump(server, "postgres") == dump(pair.primary, "postgres")


def test_b16_a_promotion_meanwhile_ends_the_backup_and_the_next_one_reads_the_primary(
    pair: Pair,
) -> None:
    def promote(name: BlobName) -> None:
        if name.path.endswith("base.pgdata.0000"):
            assert pair.standby.query("SELECT pg_promote(true, 30)") == [(True,)]

    store = WatchedStore(pair.site.services().store, before=promote)
    with pytest.raises(StandbyPromoted) as failed:
        pair.site.backup(store=store)
    assert failed.value.retryable, "a job tries again by itself"
    assert [name for name in store.committed if name.container == "full"]
    assert list(list_backups(pair.site.services().store)) == []

    document = pair.site.backup().document
    assert document.source is BackupSource.PRIMARY
    assert (document.counter, document.timeline) == (1, 1)
    assert verify(pair.site.services(), pair.site.newest()).passed


def test_after_a_failover_the_heir_is_backed_up_under_the_same_name(pair: Pair) -> None:
    pair.site.backup()
    pair.primary.stop()
    assert pair.standby.query("SELECT pg_promote(true, 30)") == [(True,)]
    heir = pair.with_settings(dsn=pair.site.values["cluster"]["standby"])
    document = heir.backup().document
    assert (document.source, document.counter) == (BackupSource.PRIMARY, 2)
    assert document.timeline == 2


def test_a_promotion_above_a_cascaded_standby_ends_its_backup_and_its_chain(
    pair: Pair, place: Path
) -> None:
    """The role is no pg_monitor: SQL tells it of the new timeline at a restartpoint, not before."""
    with make_standby(pair.standby, place / "cascaded") as cascaded:
        dsns = [server.dsn("postgres", BACKUP_USER) for server in (pair.standby, cascaded)]
        site = pair.with_settings(dsn=dsns[0], standby=dsns[1])
        first = site.backup().document
        # A switch exactly at a segment's start would leave summaries that the server refuses.
        pair.primary.query("CREATE TABLE before_promotion ()")
        pair.catch_up()

        def promote(name: BlobName) -> None:
            if name.path.endswith("base.pgdata.0000"):
                assert pair.standby.query("SELECT pg_promote(true, 30)") == [(True,)]
                pair.standby.query("CREATE TABLE after_promotion ()")
                query = "SELECT 1 FROM pg_class WHERE relname = 'after_promotion'"
                wait_until(lambda: cascaded.query(query), LIMIT_S, "the cascaded one follows")

        with pytest.raises(SystemChanged) as failed:
            site.backup(store=WatchedStore(site.services().store, before=promote))
        assert failed.value.retryable
        Pair(pair.standby, cascaded, site).checkpoint()
        document = incremental(site).document
        assert (document.source, document.counter) == (BackupSource.STANDBY, 2)
        assert (first.timeline, document.timeline) == (1, 2)
        assert document.instead_of_incremental is not None
        assert "starts on 2" in document.instead_of_incremental.reason
