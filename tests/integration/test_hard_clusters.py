"""Clusters that are hard to copy: full and incremental, verified, restored, started, compared."""

import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from local.postgres_initdb import SUPERUSER, ClusterOptions, clean_environment
from local.postgres_server import PostgresServer
from shared.domain.backup import BackupKind
from shared.errors import PostgresCommandFailed
from shared.repository.backups import BackupNotFound
from tests.harness.hard_cluster import (
    EXCLUDED,
    NOT_TO_COPY,
    ODD_FILES,
    REPLACED,
    SEGMENT,
    HardCluster,
    Mischief,
    dumps,
    hard_cluster,
    put,
)
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_services import (
    Site,
    StartRestored,
    WatchedStore,
    make_site,
    verify_with_postgres,
)
from worker.commands.backup import BackupOutcome, BackupRequest, back_up
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.postgres]

INCREMENTAL_SINCE = 17
PAGE = 8192


@pytest.mark.slow
def test_b14_b15_b18_b21_a_hard_cluster_survives_a_backup_in_the_middle_of_its_changes(
    roomy_place: Path, make_cluster: MakeCluster, key_set: KeySet, start_restored: StartRestored
) -> None:
    with hard_cluster(make_cluster, roomy_place) as hard:
        site = make_site(roomy_place / "site", key_set, hard.source, database="postgres")
        kinds = [BackupKind.FULL]
        if hard.source.major >= INCREMENTAL_SINCE:
            kinds.append(BackupKind.INCREMENTAL)
        for number, kind in enumerate(kinds, 1):
            outcome = back_up_amid(hard, site, Mischief(hard, number), kind)
            assert outcome.document.kind is kind
            expected = hard.dumps()
            report = verify(site.services(), site.newest())
            assert report.passed, report.findings
            restored = restore_of(hard, site, outcome, roomy_place / f"restored {number}" / "data")
            assert_left_out_and_kept(hard, restored)
            copy = start_restored(restored, hard.source)
            assert dumps(copy) == expected
            assert_alike(copy)
            copy.stop()
            shutil.rmtree(restored.parent)


@pytest.mark.slow
def test_b21_group_access_large_segments_and_pages_without_checksums_come_back(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, start_restored: StartRestored
) -> None:
    source = make_cluster(ClusterOptions(checksums=False, wal_segment_mb=64))
    open_to_group_with_log_elsewhere(source, place / "log")
    source.query("CREATE TABLE kept AS SELECT n FROM generate_series(1, 9999) n")
    site = make_site(place / "site", key_set, source, database="postgres")
    document = site.backup().document
    assert (document.postgres.data_checksums, document.postgres.wal_segment_size) == (
        False,
        64 << 20,
    )
    assert verify(site.services(), site.newest()).passed
    data = place / "restored" / "data"
    site.restore(data)
    assert verify_with_postgres(source.programs, data) == ""
    assert {stat.S_IMODE(path.stat().st_mode) for path in directories(data)} == {0o750}
    assert stat.S_IMODE((data / "PG_VERSION").stat().st_mode) == 0o640
    assert stat.S_IMODE((data / "global" / "pg_control").stat().st_mode) == 0o640
    assert not (data / "pg_wal").is_symlink()
    copy = start_restored(data, source)
    assert dumps(copy) == dumps(source)
    assert copy.query("SHOW data_checksums") == [("off",)]
    assert copy.query("SHOW wal_segment_size") == [("64MB",)]
    assert copy.query("SHOW data_directory_mode") == [("0750",)]


def test_b14_a_file_name_beyond_the_tar_format_is_told_and_nothing_is_committed(
    make_cluster: MakeCluster, key_set: KeySet, place: Path
) -> None:
    source = make_cluster()
    put(source.data / ("n" * 100), b"")
    site = make_site(place / "site", key_set, source, database="postgres")
    with pytest.raises(PostgresCommandFailed, match="file name too long for tar format"):
        site.backup()
    with pytest.raises(BackupNotFound):
        site.newest()


def test_b11_damaged_pages_make_a_backup_suspect_and_no_parent_and_are_named_in_the_log(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_cluster()
    source.query("CREATE TABLE one_page AS SELECT generate_series(1, 9999) n")
    source.query("CREATE TABLE many_pages AS SELECT generate_series(1, 9999) n")
    site = make_site(place / "site", key_set, source, database="postgres")
    good = site.backup()
    assert not good.document.suspect
    paths = damage(source, {"one_page": [3], "many_pages": range(7)})

    caplog.clear()
    with caplog.at_level(logging.INFO, "pgkeep"):
        suspect = site.backup()
    assert suspect.document.suspect
    assert suspect.document.page_checksum_failures == 8
    (event,) = (record for record in caplog.records if record.message == "backup-suspect")
    assert event.levelno == logging.WARNING  # seen by who takes a backup by hand, too
    said = "\n".join(event.fields["said"])  # type: ignore[attr-defined]
    assert f'"./{paths[0]}", block 3' in said
    assert f'file "./{paths[1]}" has a total of 7 checksum verification failures' in said
    clear = site.services().store.read(site.newest().document, limit=1 << 20)
    assert not any(str(path).encode() in clear for path in paths)
    assert verify(site.services(), site.newest()).passed
    if source.major >= INCREMENTAL_SINCE:
        request = BackupRequest(kind=BackupKind.INCREMENTAL)
        parent = back_up(site.services(), site.cluster, request).document.parent
        assert parent
        assert parent.label == good.label


def damage(source: PostgresServer, pages: Mapping[str, Iterable[int]]) -> list[Path]:
    """Overwrite bytes in pages of tables while the server is down; returns the tables' files."""
    with source.connect() as connection:
        ask = "SELECT pg_relation_filepath(%s)"
        found = [connection.execute(ask, [table]).fetchone() for table in pages]
    paths = [Path(row[0]) for row in found if row]
    source.stop()
    for path, numbers in zip(paths, pages.values(), strict=True):
        with (source.data / path).open("r+b") as file:
            for number in numbers:
                file.seek(number * PAGE + PAGE // 2)
                file.write(b"\xde\xad\xbe\xef")
    source.start()
    return paths


def open_to_group_with_log_elsewhere(source: PostgresServer, log: Path) -> None:
    """As `initdb --allow-group-access --waldir` would have made it."""
    source.stop()
    shutil.move(source.data / "pg_wal", log)
    (source.data / "pg_wal").symlink_to(log)
    for path in (source.data, *source.data.rglob("*"), *log.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o750 if path.is_dir() else 0o640)
    source.start()


def directories(data: Path) -> list[Path]:
    return [data, *(path for path in data.rglob("*") if path.is_dir())]


def back_up_amid(
    hard: HardCluster, site: Site, mischief: Mischief, kind: BackupKind
) -> BackupOutcome:
    """A backup during which the mischief is proved to have happened."""
    mischief.prepare()
    store = WatchedStore(site.services().store, before=mischief.before)
    outcome = back_up(site.services(store=store), site.cluster, BackupRequest(kind=kind))
    mischief.finish()
    assert {phase for phase, _, _ in mischief.seen} == {"streaming database files"}
    total = mischief.seen[0][2]
    first, then, *later = (done for _, done, _ in mischief.seen)
    assert first <= then < total - 1
    assert later == [total - 1, total - 1]  # the data directory itself comes last
    assert not outcome.document.suspect
    return outcome


def restore_of(hard: HardCluster, site: Site, outcome: BackupOutcome, data: Path) -> Path:
    """Restored with every tablespace at a new place; pg_verifybackup finds nothing."""
    spaces = [item for item in outcome.document.tablespaces if not item.in_place]
    assert len(spaces) == 3
    mapping = {item.path: str(data.parent / Path(item.path).name) for item in spaces}
    site.restore(data, tablespace_mapping=mapping)
    assert verify_with_postgres(hard.source.programs, data, "--ignore=tablespace_map") == ""
    return data


def assert_left_out_and_kept(hard: HardCluster, data: Path) -> None:
    for name in EXCLUDED:
        assert not (data / name).exists(), name
    for name in REPLACED:
        assert NOT_TO_COPY not in (data / name).read_bytes(), name
    assert [*(data / "pg_replslot").iterdir()] == []
    names = [name for _, _, files in os.walk(data, followlinks=True) for name in files]
    assert not [name for name in names if name.startswith("t") and name[1:2].isdigit()]
    for odd, content in ODD_FILES.items():
        assert (data / os.fsdecode(odd)).read_bytes() == content
    for table in ("forgotten", "forgotten_there"):
        main = data / hard.file(table)
        assert not main.exists()
        assert main.with_name(f"{main.name}_init").exists()
    long = data / hard.file("long")
    assert long.stat().st_size == SEGMENT
    assert long.with_name(f"{long.name}.1").stat().st_size > 0
    assert (data / hard.file("empty")).stat().st_size == 0


def assert_alike(copy: PostgresServer) -> None:
    """What pg_dump does not say of the started copy."""
    assert copy.query("SELECT count(*) FROM forgotten") == [(0,)]
    assert copy.query("SELECT count(*) FROM forgotten_there") == [(0,)]
    assert copy.query("SHOW wal_segment_size") == [("1MB",)]
    assert copy.query("SHOW data_checksums") == [("on",)]
    assert copy.query("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    assert copy.query("SELECT count(*) FROM pg_tablespace WHERE spcname LIKE 'gone%'") == [(0,)]
    assert_sound(copy)


def assert_sound(copy: PostgresServer) -> None:
    """pg_amcheck reads every table and every index of every database."""
    address = ["--host=127.0.0.1", f"--port={copy.port}", f"--username={SUPERUSER}"]
    checked = subprocess.run(
        [copy.programs / "pg_amcheck", "--all", "--install-missing", "--jobs=2", *address],
        check=False,
        capture_output=True,
        text=True,
        env={**clean_environment(), "PGPASSWORD": copy.passwords[SUPERUSER]},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
