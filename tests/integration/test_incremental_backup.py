"""Incremental backups of real servers: what they build on, and why a full one is taken instead."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import hand_over, identity, server_account
from shared.domain.backup import BackupKind
from shared.errors import PostgresGone
from shared.repository import layout
from shared.repository.backups import read_backup
from shared.repository.blob_store import BlobName
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_services import (
    CLUSTER,
    Site,
    StartRestored,
    WatchedStore,
    dump,
    make_site,
)
from worker.commands.backup import BackupOutcome, BackupRequest, IncrementalUnavailable, back_up
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

SUMMARIES = ClusterOptions(settings={"summarize_wal": "on"})
FIRST_MAJOR = 17
LIMIT_S = 30


@dataclass(frozen=True)
class Source:
    """A server that summarises its WAL, with a table, and a repository of its own."""

    server: PostgresServer
    site: Site

    def change(self, rows: int = 100) -> None:
        with self.server.connect() as connection:
            connection.execute(
                "INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, %s) n", [rows]
            )

    def await_summary(self) -> None:
        """Until the WAL of now is summarised: summaries end where checkpoints begin."""
        [(here,)] = self.server.query("SELECT pg_current_wal_insert_lsn()::text")
        self.server.query("CHECKPOINT")
        query = "SELECT count(*) FROM pg_available_wal_summaries() WHERE end_lsn >= %s::pg_lsn"
        with self.server.connect() as connection:
            wait_until(
                lambda: connection.execute(query, [here]).fetchone() != (0,), LIMIT_S, "a summary"
            )

    def lose_summaries(self) -> None:
        summaries = self.server.data / "pg_wal" / "summaries"
        shutil.rmtree(summaries)
        summaries.mkdir()
        hand_over(summaries, server_account())

    def policy(self, **incremental: object) -> Site:
        return self.site.changed(cluster={"incremental": incremental})


@pytest.fixture
def source(make_cluster: MakeCluster, key_set: KeySet, place: Path, postgres_major: int) -> Source:
    server = make_cluster(SUMMARIES if postgres_major >= FIRST_MAJOR else ClusterOptions())
    server.query("CREATE TABLE t (n integer, body text)")
    return Source(server, make_site(place, key_set, server, database="postgres"))


def instead(outcome: BackupOutcome) -> str | None:
    """The code of why it is a full backup; None for an incremental one."""
    why = outcome.document.instead_of_incremental
    assert (why is None) is (outcome.document.kind is BackupKind.INCREMENTAL)
    return None if why is None else why.code


def drop_part(site: Site, label: str, part: str) -> None:
    container = "full" if "-F-" in label else "incremental"
    (path,) = (site.repository / container).rglob(f"{label}/{part}")
    path.unlink()


@pytest.mark.postgres
def test_an_incremental_holds_what_changed_or_is_called_full(
    source: Source, postgres_major: int, place: Path, start_restored: StartRestored
) -> None:
    source.change(20_000)
    full = source.site.backup()
    source.change()
    first = source.site.incremental()
    source.change()
    second = source.site.incremental()

    if postgres_major < FIRST_MAJOR:
        assert instead(first) == "version-without-incrementals"
        assert first.label[17] == "F"
    else:
        assert [instead(first), instead(second)] == [None, None]
        assert (first.label[17], first.document.depth, second.document.depth) == ("I", 1, 2)
        assert first.document.parent is not None
        assert first.document.parent.digest == full.digest
        assert second.document.parent is not None
        assert second.document.parent.label == first.label
        assert second.document.plain_size < full.document.plain_size * 0.9
    expected = dump(source.server, "postgres")
    source.site.restore(place / "data")
    assert dump(start_restored(place / "data", source.server), "postgres") == expected


def test_c01_without_summaries_a_full_backup_says_so(source: Source) -> None:
    assert instead(source.site.incremental()) == "no-backup"
    source.server.query("ALTER SYSTEM SET summarize_wal = off")
    source.server.query("SELECT pg_reload_conf()")
    wait_until(
        lambda: source.server.query("SHOW summarize_wal") == [("off",)], LIMIT_S, "it is off"
    )
    assert instead(source.site.incremental()) == "wal-summaries-off"


def test_c01_wal_that_cannot_be_summarised_means_a_full_backup(source: Source) -> None:
    """007_wal_level_minimal: such a time leaves a hole in the summaries."""
    source.site.backup()
    minimal = {"wal_level": "minimal", "max_wal_senders": "0", "summarize_wal": "off"}
    for settings in (minimal, {"wal_level": "replica", "max_wal_senders": "8"}):
        source.server.stop()
        source.server.configure(settings)
        source.server.start()
        source.change()
    source.server.query("ALTER SYSTEM SET summarize_wal = on")
    source.server.query("SELECT pg_reload_conf()")
    source.await_summary()
    assert instead(source.site.incremental()) == "wal-summaries-missing"


def test_c01_summaries_that_were_removed_are_missed_here_or_by_the_server(source: Source) -> None:
    """A role with no right but REPLICATION may list them, but sees no hole behind the last one."""
    source.site.backup()
    source.change()
    source.await_summary()
    source.lose_summaries()
    refused = source.site.incremental()
    assert instead(refused) == "incremental-refused"
    assert "WAL summaries are required" in str(refused.document.instead_of_incremental)
    source.change()
    source.await_summary()
    source.lose_summaries()
    source.change()
    source.await_summary()
    assert instead(source.site.incremental()) == "wal-summaries-missing"


def test_the_settings_may_want_no_full_backup_instead(source: Source) -> None:
    site = source.policy(when_impossible="fail")
    with pytest.raises(IncrementalUnavailable, match=r"no backup to build on yet \(no-backup\)"):
        site.incremental()
    assert list((site.repository / "full").rglob("backup.json")) == []


def test_c07_a_chain_of_the_longest_length_is_followed_by_a_full_backup(source: Source) -> None:
    site = source.policy(chain_limit=1)
    site.backup()
    assert instead(site.incremental()) is None
    third = site.incremental()
    assert instead(third) is None
    assert third.document.depth == 1


def test_c02_a_parent_whose_parts_are_gone_is_passed_over(source: Source) -> None:
    full = source.site.backup()
    lost = source.site.incremental()
    drop_part(source.site, lost.label, "base.pgdata.0000")
    taken = source.site.incremental()
    assert taken.document.parent is not None
    assert taken.document.parent.label == full.label
    drop_part(source.site, full.label, "base.pgdata.0000")
    assert instead(source.site.incremental()) == "chain-broken"


def test_c11_a_verified_parent_is_preferred_and_two_may_build_on_it(source: Source) -> None:
    full = source.site.backup()
    verify(source.site.services(), source.site.newest())
    first = source.site.incremental()
    second = source.site.incremental()
    parents = [item.document.parent and item.document.parent.label for item in (first, second)]
    assert parents == [full.label, full.label]
    third = source.policy(parent="newest").incremental()
    assert third.document.parent is not None
    assert third.document.parent.label == second.label


def test_c04_a_parent_that_failed_its_verification_is_no_parent(source: Source) -> None:
    full = source.site.backup()
    (volume,) = (source.site.repository / "full").rglob("base.pgdata.0000")
    damaged = bytearray(volume.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    volume.write_bytes(damaged)
    report = verify(source.site.services(), source.site.newest())
    assert not report.passed
    assert instead(source.site.incremental()) == "verification-failed"
    assert full.document.kind is BackupKind.FULL


def test_t22_page_checksums_that_were_switched_mean_a_full_backup(source: Source) -> None:
    source.site.backup()
    source.server.stop()
    account = server_account()
    subprocess.run(
        [source.server.programs / "pg_checksums", "--disable", "-D", source.server.data],
        check=True,
        capture_output=True,
        **identity(account),
    )
    source.server.start()
    assert instead(source.site.incremental()) == "checksums-changed"


def test_c05_a_backup_after_a_promotion_is_full(source: Source) -> None:
    """Summaries of the timeline that was left cannot be trusted (decision 0018)."""
    source.site.backup()
    source.server.stop()
    (source.server.data / "standby.signal").touch()
    hand_over(source.server.data / "standby.signal", server_account())
    source.server.start()
    source.server.query("SELECT pg_promote()")
    taken = source.site.incremental()
    assert taken.document.timeline == 2
    assert instead(taken) == "timeline-switched"


def test_a_job_that_is_delivered_again_does_not_take_a_second_incremental(source: Source) -> None:
    source.site.backup()
    request = BackupRequest(BackupKind.INCREMENTAL, uuid4())
    first = back_up(source.site.services(), source.site.cluster, request)
    again = back_up(source.site.services(), source.site.cluster, request)
    assert first.digest == again.digest


def test_a_writer_that_may_not_open_the_parents_manifest_takes_a_full_backup(
    source: Source,
) -> None:
    source.site.backup()
    blind = source.site.changed(keys={**source.site.values["keys"], "unwrap": []})
    assert instead(blind.incremental()) == "manifest-key-unusable"


def test_b04_a_walsender_that_is_terminated_leaves_no_incremental(source: Source) -> None:
    full = source.site.backup()
    source.change(20_000)
    site = source.site.changed(worker={**source.site.values["worker"], "volume_bytes": 1 << 20})

    def terminate(name: BlobName) -> None:
        if name.path.endswith("base.pgdata.0000"):
            source.server.query(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication"
                " WHERE application_name = 'pgkeep'"
            )

    store = WatchedStore(site.services().store, after=terminate)
    with pytest.raises(PostgresGone):
        site.incremental(store=store)
    assert site.newest().label.text == full.label
    assert instead(site.incremental()) is None


def test_the_command_says_what_was_taken_and_why(source: Source) -> None:
    first = source.site.pgkeep("backup", CLUSTER, "--incremental")
    assert "full instead of incremental: there is no backup to build on yet" in first.stdout
    second = json.loads(source.site.pgkeep("backup", CLUSTER, "--incremental", "--json").stdout)
    assert second["parent"]["label"] in first.stdout
    assert (second["kind"], second["depth"]) == ("incremental", 1)
    assert second["plain_size"] < second["whole_bytes"]
    both = source.site.pgkeep("backup", CLUSTER, "--incremental", "--synthetic")
    assert both.returncode == 2
    assert "backup-kind-invalid" in both.stderr


def test_b07_a_worker_that_dies_before_the_document_leaves_no_incremental(source: Source) -> None:
    full = source.site.backup()

    class Died(Exception):
        pass

    def die(name: BlobName) -> None:
        if layout.is_backup_document(name):
            raise Died

    services = source.site.services()
    store = WatchedStore(services.store, before=die)
    with pytest.raises(Died):
        source.site.incremental(store=store)
    assert source.site.newest().label.text == full.label
    taken = source.site.incremental()
    assert read_backup(services.store, source.site.newest(), services.pinned).digest == taken.digest
