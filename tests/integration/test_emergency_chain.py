"""The emergency scripts restore a chain with pg_combinebackup, without our code in reach."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from psycopg import sql

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import hand_over, make_reachable_directory, server_account
from shared.domain.backup import BackupKind
from tests.harness.postgres_clusters import programs_of
from tests.harness.worker_services import (
    CHECKOUT,
    CLUSTER,
    Site,
    StartRestored,
    dump,
    make_site,
    verify_with_postgres,
)
from worker.commands.backup import BackupRequest, back_up
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

SCRIPTS = CHECKOUT / "docs" / "how-to"
CHAIN, SINGLE = SCRIPTS / "emergency_chain.py", SCRIPTS / "emergency_restore.py"
TABLES = (sql.Identifier("slow"), sql.Identifier("quick"))
SETTINGS = {"summarize_wal": "on", "shared_buffers": "16MB", "autovacuum": "off"}


@dataclass(frozen=True)
class Scene:
    """A full and two incrementals of `source`, which has not changed since; where to restore to."""

    source: PostgresServer
    site: Site
    labels: tuple[str, ...]
    tablespace: int
    place: Path

    @property
    def target(self) -> Path:
        return self.place / "restored" / "data"

    @property
    def moved(self) -> Path:
        return self.place / "moved=here"

    def link(self, number: int) -> Path:
        kind = "incremental" if number else "full"
        return self.site.repository / kind / CLUSTER / self.labels[number]

    def copied(self) -> "Scene":
        """With a download of its own to damage."""
        return replace(self, site=self.site.copied(self.place / "copy"))

    def run(self, script: Path = CHAIN, **changes: object) -> subprocess.CompletedProcess[str]:
        """In isolation, as a stranger would: neither our code nor its folder is importable."""
        options = {
            "repository": self.site.repository,
            "cluster": CLUSTER,
            "label": self.labels[-1],
            "key": self.site.keys.escrow.private,
            "target": self.target,
            "tablespace": f"{self.tablespace}={self.moved}",
            "programs": self.source.programs,
            **changes,
        }
        words = [f"--{name}={value}" for name, value in options.items() if value is not None]
        return subprocess.run(
            [sys.executable, "-I", "-W", "error", str(script), *words],
            cwd=self.place,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    def assert_stopped(self, run: subprocess.CompletedProcess[str], reason: str) -> None:
        assert run.returncode == 1
        assert reason in run.stderr
        assert "Traceback" not in run.stderr
        assert not self.target.exists()


@pytest.fixture(scope="module")
def _backed_up(worker_folder: Path, key_set: KeySet) -> Iterator[Callable[[int], Scene]]:
    with ExitStack() as at_the_end:

        @cache
        def back_up_chain(major: int) -> Scene:
            folder = Path(mkdtemp(prefix=f"emergency-chain-{major}-", dir=worker_folder))
            make_reachable_directory(folder, server_account())
            options = ClusterOptions(fsync=False, settings=SETTINGS)
            source = PostgresServer.create(programs_of(major), folder / "source", options)
            at_the_end.enter_context(source)
            site = make_site(folder / "site", key_set, source, database="postgres")
            tablespace = fill(source, folder / "fast")
            labels = [take(site, BackupKind.FULL)]
            for number in (1, 2):
                change(source, number)
                labels.append(take(site, BackupKind.INCREMENTAL))
            return Scene(source, site, tuple(labels), tablespace, folder)

        yield back_up_chain


@pytest.fixture
def scene(request: pytest.FixtureRequest, _backed_up: Callable[[int], Scene], place: Path) -> Scene:
    """Of the PostgreSQL that a test is parametrised with, else of 17."""
    (place / "restored").mkdir()
    (place / "restored").chmod(0o711)
    return replace(_backed_up(getattr(request, "param", 17)), place=place)


def fill(source: PostgresServer, tablespace: Path) -> int:
    """The OID of the tablespace that it makes, in which one of two tables lies."""
    tablespace.mkdir()
    hand_over(tablespace, server_account())
    with source.connect() as connection:
        location = sql.Literal(str(tablespace))
        connection.execute(sql.SQL("CREATE TABLESPACE fast LOCATION {}").format(location))
        connection.execute("CREATE TABLE slow (id integer, body text)")
        connection.execute("CREATE TABLE quick (id integer, body text) TABLESPACE fast")
        for table in TABLES:
            rows = sql.SQL("SELECT id, repeat('x', 200) FROM generate_series(1, 20000) AS id")
            connection.execute(sql.SQL("INSERT INTO {} {}").format(table, rows))
            connection.execute(sql.SQL("VACUUM {}").format(table))  # every page is all-visible now
        connection.execute("CREATE EXTENSION pg_visibility")
        [(oid,)] = connection.execute("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
    return int(oid)


def change(source: PostgresServer, number: int) -> None:
    with source.connect() as connection:
        for table in TABLES:
            update = sql.SQL("UPDATE {} SET body = 'changed' WHERE id / 100 = {}")
            connection.execute(update.format(table, sql.Literal(number)))
        new = sql.Identifier(f"new_{number}")
        connection.execute(sql.SQL("CREATE TABLE {} AS SELECT 1 AS id").format(new))


def take(site: Site, kind: BackupKind) -> str:
    outcome = back_up(site.services(), site.cluster, BackupRequest(kind))
    assert outcome.document.kind is kind
    return outcome.label


# From 18 on, pg_combinebackup is told to link files.
@pytest.mark.parametrize("scene", [17, 18], indirect=True)
def test_a_chain_with_a_tablespace_is_restored_and_starts(
    scene: Scene, start_restored: StartRestored
) -> None:
    run = scene.run()
    assert run.returncode == 0, run.stdout + run.stderr
    assert "every byte" in run.stdout
    assert [path.name for path in scene.target.parent.iterdir()] == ["data"]
    assert "INCREMENTAL" not in (scene.target / "backup_label").read_text()
    link = scene.target / "pg_tblspc" / str(scene.tablespace)
    assert link.readlink() == scene.moved
    for path in (scene.target, scene.moved):
        hand_over(path, server_account())
    assert verify_with_postgres(scene.source.programs, scene.target) == ""
    restored = start_restored(scene.target, scene.source)
    assert dump(restored, "postgres") == dump(scene.source, "postgres")
    # What an index-only scan believes; PostgreSQL before 17.11 and 18.5 sends old maps.
    assert restored.query("SELECT * FROM pg_check_visible('slow')") == []
    assert restored.query("SELECT * FROM pg_check_visible('quick')") == []


def test_a_link_in_the_middle_can_be_the_newest(scene: Scene) -> None:
    run = scene.run(label=scene.labels[1])
    assert run.returncode == 0, run.stdout + run.stderr
    assert scene.labels[2] not in run.stdout
    assert (scene.target / "global" / "pg_control").exists()


def test_the_script_for_a_full_backup_refuses_an_incremental_and_the_other_way_round(
    scene: Scene,
) -> None:
    refused = scene.run(SINGLE, programs=None)
    scene.assert_stopped(refused, f"It builds on {scene.labels[1]}: run emergency_chain.py")
    scene.assert_stopped(scene.run(label=scene.labels[0]), "run emergency_restore.py")


def test_a_parent_that_was_replaced_or_is_gone_stops_it_before_anything_is_written(
    scene: Scene,
) -> None:
    copied = scene.copied()
    document = copied.link(1) / "backup.json"
    content = json.loads(document.read_bytes())
    document.write_text(json.dumps({**content, "counter": content["counter"] + 1}))
    scene.assert_stopped(copied.run(), "was replaced")
    document.unlink()
    scene.assert_stopped(copied.run(), "backup.json is missing")
    assert list(scene.target.parent.iterdir()) == []


def test_a_damaged_link_is_named_and_the_target_does_not_appear(scene: Scene) -> None:
    copied = scene.copied()
    volume = copied.link(1) / "base.pgdata.0000"
    blob = bytearray(volume.read_bytes())
    blob[len(blob) // 2] ^= 1
    volume.write_bytes(blob)
    scene.assert_stopped(copied.run(), f"{volume} is damaged")
    scene.assert_stopped(copied.run(), "left over from a run before")


def test_programs_that_are_not_there_or_of_another_version_are_asked_for(scene: Scene) -> None:
    scene.assert_stopped(scene.run(programs=scene.place), "There is no pg_combinebackup")
    other = programs_of(18 if scene.source.major == 17 else 17)
    scene.assert_stopped(scene.run(programs=other), f"is of PostgreSQL {scene.source.major}")
    assert list(scene.target.parent.iterdir()) == []
