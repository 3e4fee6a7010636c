"""Backup, verify and restore on real PostgreSQL: the copy is the source at the backup's end."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from local.azurite import EmulatedAccount
from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import hand_over, server_account
from shared.domain.backup import BackupSource
from shared.errors import NotFound
from shared.repository.backups import BackupNotFound, list_backups, read_backup
from shared.repository.blob_store import BlobName
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster, make_standby
from tests.harness.worker_memory import LIMIT_MIB, peak_rss_mib
from tests.harness.worker_services import (
    CHECKOUT,
    CLUSTER,
    Site,
    StartRestored,
    WatchedStore,
    dump,
    make_site,
    startable,
    verify_with_postgres,
)
from worker.commands.restore import plan_only
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

EMERGENCY = CHECKOUT / "docs" / "how-to" / "emergency_restore.py"
ODD_NAME = b"caf\xe9 not utf-8"


@contextmanager
def writing(source: PostgresServer) -> Iterator[tuple[Event, list[int]]]:
    """Changes rows until the event is set; the list says which rounds were done."""
    stop, rounds = Event(), list[int]()

    def write() -> None:
        with source.connect() as connection:
            while not stop.is_set():
                rounds.append(len(rounds))
                connection.execute("INSERT INTO busy VALUES (%s, repeat('x', 999))", rounds[-1:])
                connection.execute("UPDATE busy SET body = 'y' WHERE id = %s", [len(rounds) // 2])
                connection.execute("DELETE FROM busy WHERE id = %s", [len(rounds) // 4])

    thread = Thread(target=write)
    thread.start()
    try:
        yield stop, rounds
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def busy_source(make_cluster: MakeCluster) -> PostgresServer:
    """With what makes a copy hard: odd files, unlogged and empty tables, a large object."""
    source = make_cluster()
    with source.connect() as connection:
        connection.execute("CREATE TABLE busy (id integer, body text)")
        connection.execute("CREATE INDEX ON busy (id)")
        connection.execute("CREATE TABLE empty (id integer)")
        connection.execute("CREATE UNLOGGED TABLE forgotten AS SELECT generate_series(1, 99) id")
        connection.execute("SELECT lo_from_bytea(4711, decode(repeat('00ff', 100000), 'hex'))")
        connection.execute(
            "CREATE TABLE still AS SELECT n, md5(n::text) FROM generate_series(1, 99999) n"
        )
    odd = os.fsencode(source.data) + b"/" + ODD_NAME
    Path(os.fsdecode(odd)).write_bytes(b"kept")
    hand_over(Path(os.fsdecode(odd)), server_account())
    return source


@pytest.mark.postgres
def test_what_is_restored_is_the_source_at_the_end_of_the_backup(
    busy_source: PostgresServer, key_set: KeySet, place: Path, start_restored: StartRestored
) -> None:
    site = make_site(place / "site", key_set, busy_source, database="postgres")
    data = place / "restored" / "data"
    with writing(busy_source) as (stop, rounds):
        wait_until(lambda: len(rounds) > 20, 20, "the writer has begun")
        at_first_volume: list[int] = []

        def end_of_changes(name: BlobName) -> None:
            # The first of five volumes is committed: the stream goes on, its end is far away.
            if name.path.endswith("base.pgdata.0000"):
                stop.set()
                at_first_volume.append(len(rounds))

        store = WatchedStore(site.services().store, before=end_of_changes)
        before = len(rounds)
        outcome = site.backup(store=store)
        assert at_first_volume[0] > before
    expected = dump(busy_source, "postgres")

    document = outcome.document
    assert len(document.volumes) >= 3
    assert document.wal_included
    assert document.start_lsn < document.stop_lsn
    assert document.source is BackupSource.PRIMARY
    assert not document.suspect
    assert store.committed[-1] == site.newest().document

    report = verify(site.services(), site.newest())
    assert report.passed, report.findings
    assert report.stored_bytes == document.stored_size
    assert report.files > 900

    restored = site.restore(data)
    assert restored.label == outcome.label
    assert verify_with_postgres(busy_source.programs, data) == ""
    assert Path(os.fsdecode(os.fsencode(data) + b"/" + ODD_NAME)).read_bytes() == b"kept"
    (empty,) = busy_source.query("SELECT pg_relation_filepath('empty')")
    assert (data / empty[0]).stat().st_size == 0
    server = start_restored(data, busy_source)
    assert dump(server, "postgres") == expected
    assert server.query("SELECT count(*) FROM forgotten") == [(0,)]
    assert server.query("SELECT length(lo_get(4711))") == [(200_000,)]
    assert server.query("SHOW archive_mode") == [("off",)]
    wait_until(
        lambda: server.query("SELECT timeline_id FROM pg_control_checkpoint()") == [(2,)],
        20,
        "the copy has a timeline of its own",
    )


@pytest.mark.postgres
def test_a_deep_verification_counts_what_it_read(
    committed_site: Site, source_cluster: PostgresServer
) -> None:
    services = committed_site.services()
    document = read_backup(services.store, committed_site.newest(), services.pinned).document
    deep = verify(services, committed_site.newest())
    shallow = verify(services, committed_site.newest(), deep=False)
    assert deep.passed
    assert deep.deep
    mebibyte = 1 << 20
    assert deep.segments == sum(-(-part.stored_size // mebibyte) for part in document.parts)
    assert deep.stored_bytes == shallow.stored_bytes == document.stored_size
    assert deep.plain_bytes == sum(part.plain_size for part in document.parts)
    assert shallow.passed
    assert (shallow.segments, shallow.files, shallow.plain_bytes) == (0, 0, 0)


def test_a_verification_without_any_private_key_reads_the_stored_bytes(
    committed_site: Site, place: Path
) -> None:
    keyless = committed_site.copied(place / "copy").changed(keys={"unwrap": []})
    assert verify(keyless.services(), keyless.newest(), deep=False).passed


def test_a_verification_is_idempotent_by_its_report(committed_site: Site, place: Path) -> None:
    site = committed_site.copied(place / "copy")
    first = verify(site.services(), site.newest(), report_id="one")
    shutil.rmtree(site.repository / "full" / CLUSTER / first.label / "nothing", ignore_errors=True)
    (site.repository / "full" / CLUSTER / first.label / "index").unlink()
    assert verify(site.services(), site.newest(), report_id="one") == first
    assert not verify(site.services(), site.newest(), report_id="two").passed


def test_a_dry_run_tells_the_plan_and_writes_nothing(committed_site: Site, place: Path) -> None:
    target = place / "data"
    prepared = plan_only(committed_site.services(), committed_site.request(target))
    assert prepared.plan.reasons == (f"backup {committed_site.newest().label}: it is the newest",)
    assert prepared.plan.file_bytes > prepared.plan.fetched_bytes > 1_000_000
    assert prepared.estimated_seconds > 0
    assert list(place.iterdir()) == []


def test_backups_form_a_chain_of_documents(site: Site) -> None:
    first, second = site.backup(), site.backup()
    assert first.document.previous is None
    assert second.document.previous is not None
    assert second.document.previous.label == first.label
    assert second.document.previous.digest == first.digest
    assert [first.document.counter, second.document.counter] == [1, 2]
    assert second.document.cluster_uuid == first.document.cluster_uuid
    assert first.document.kid != second.document.kid


def test_an_older_backup_is_restored_by_its_label_and_an_unknown_one_is_told(
    site: Site, place: Path
) -> None:
    first = site.backup()
    site.backup()
    request = site.request(place / "data")
    prepared = plan_only(site.services(), replace(request, label=first.label))
    assert prepared.plan.reasons == (f"backup {first.label}: it was named",)
    with pytest.raises(BackupNotFound, match="20200101T000000Z-F-aaaa"):
        plan_only(site.services(), replace(request, label="20200101T000000Z-F-aaaa"))


def test_i1_every_blob_of_a_backup_is_committed_before_its_document(site: Site) -> None:
    store = WatchedStore(site.services().store)
    site.backup(store=store)
    names = [name.path.rpartition("/")[2] for name in store.committed]
    assert names[0] == "cluster.json"
    assert all(re.fullmatch(r"k[a-z2-7]{26}\.json", name) for name in names[1:3])
    assert names[3].startswith("base.pgdata.0000")
    assert names[-4:] == ["index", "backup_manifest", "facts", "backup.json"]


def test_a_backup_through_azurite_restores_like_one_in_a_directory(
    source_cluster: PostgresServer,
    azurite_account: EmulatedAccount,
    key_set: KeySet,
    place: Path,
) -> None:
    site = make_site(place / "site", key_set, source_cluster, storage=azurite_account)
    site.backup()
    report = verify(site.services(), site.newest())
    assert report.passed, report.findings
    site.restore(place / "restored" / "data")
    assert verify_with_postgres(source_cluster.programs, place / "restored" / "data") == ""


@pytest.mark.postgres
def test_a_backup_of_a_standby_restores_as_a_primary(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, start_restored: StartRestored
) -> None:
    primary = make_cluster()
    primary.query("CREATE TABLE kept AS SELECT generate_series(1, 1000) n")
    standby = make_standby(primary, place / "standby")
    with standby:
        wait_until(
            lambda: standby.query("SELECT count(*) FROM pg_class WHERE relname = 'kept'") == [(1,)],
            20,
            "the standby has caught up",
        )
        site = make_site(place / "site", key_set, standby, database="postgres")
        assert site.backup().document.source is BackupSource.STANDBY
    assert verify(site.services(), site.newest()).passed
    data = place / "restored" / "data"
    site.restore(data)
    assert not (data / "standby.signal").exists()
    assert verify_with_postgres(primary.programs, data) == ""
    server = start_restored(data, primary)
    wait_until(
        lambda: server.query("SELECT pg_is_in_recovery()") == [(False,)], 20, "recovery has ended"
    )
    assert server.query("SELECT count(*) FROM kept") == [(1000,)]


@pytest.mark.postgres
def test_k01_the_documented_emergency_restore_opens_a_real_backup_without_pgkeep(
    committed_site: Site,
    source_cluster: PostgresServer,
    place: Path,
    start_restored: StartRestored,
) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (place / "restored").mkdir()
    data = place / "restored" / "data"
    done = subprocess.run(
        [
            *(sys.executable, "-I", EMERGENCY, "--repository", committed_site.repository),
            *("--cluster", CLUSTER, "--label", str(committed_site.newest().label)),
            *("--key", committed_site.keys.escrow.private, "--target", data),
        ],
        check=False,
        cwd=elsewhere,
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DONE" in done.stdout
    hand_over(data, server_account())
    assert verify_with_postgres(source_cluster.programs, data, "--ignore=tablespace_map") == ""
    assert dump(start_restored(data, source_cluster)) == dump(source_cluster)


@pytest.mark.slow
def test_b09_memory_stays_bounded_whatever_the_size_of_the_cluster(
    make_cluster: MakeCluster, key_set: KeySet, place: Path
) -> None:
    source = make_cluster(ClusterOptions(settings={"max_wal_size": "2GB"}))
    started = time.monotonic()
    source.query(
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 16)"
        " || (SELECT string_agg(sha512((n * 8 + i)::text::bytea)::text, '') FROM"
        " generate_series(1, 4) i) FROM generate_series(1, 280000) n"
    )
    source.query("VACUUM big")
    (size,) = source.query("SELECT pg_relation_size('big') / 1048576")[0]
    assert size > 280
    assert time.monotonic() - started < 60
    site = make_site(place / "site", key_set, source, database="postgres").changed(
        worker={"volume_bytes": 64 << 30}
    )
    account = server_account()
    owner = ["--owner", account.name] if account else []
    peaks = {
        "backup": peak_rss_mib(site, "backup", CLUSTER),
        "verify": peak_rss_mib(site, "verify", CLUSTER),
        "restore": peak_rss_mib(site, "restore", CLUSTER, str(place / "r" / "data"), *owner),
    }
    assert max(peaks.values()) <= LIMIT_MIB, peaks


def test_nothing_that_is_no_backup_is_found(site: Site) -> None:
    with pytest.raises(BackupNotFound, match="has no backup at all"):
        site.newest()
    with pytest.raises(NotFound):
        site.restore(site.folder / "data")
    assert not startable(site.folder / "data")
    assert list(list_backups(site.services().store)) == []
    assert BACKUP_USER not in site.settings.model_dump_json()
