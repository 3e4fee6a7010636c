"""Drills prove a backup, or say why not; they leave nothing behind and touch nothing else."""

from pathlib import Path
from threading import Event, Thread

import pytest

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.domain.drill import DrillPhase
from shared.errors import SettingsInvalid
from shared.repository import layout
from shared.repository.reports import read_report
from tests.harness.corrupt import flip_bit
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_services import CLUSTER, Site, make_site
from worker.commands.drill import DrillRequest, drill
from worker.commands.opened_backup import BackupIncomplete
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

CHECKS = ["opens", "row_counts", "collations", "pg_amcheck", "page_checksums"]


@pytest.fixture
def source(make_cluster: MakeCluster) -> PostgresServer:
    source = make_cluster(ClusterOptions(backup_user_reads_data=True))
    with source.connect() as connection:
        connection.execute("CREATE TABLE busy AS SELECT generate_series(1, 1000) id")
        connection.execute("CREATE TABLE still AS SELECT generate_series(1, 1000) id")
        connection.execute("CREATE INDEX ON still (id)")
        connection.execute("CREATE UNLOGGED TABLE forgotten AS SELECT 1 id")
    return source


@pytest.fixture
def drilled(source: PostgresServer, key_set: KeySet, place: Path) -> Site:
    site = make_site(place / "site", key_set, source, database="postgres")
    return site.changed(cluster={"tables": ["public.busy", "public.still", "public.forgotten"]})


def scratch_of(site: Site) -> list[str]:
    return [path.name for path in (site.folder / "scratch").iterdir()]


@pytest.mark.postgres
def test_a_drill_proves_a_backup_that_was_taken_while_rows_changed(
    source: PostgresServer, drilled: Site
) -> None:
    stop, rounds = Event(), list[int]()

    def write() -> None:
        with source.connect() as connection:
            while not stop.is_set():
                rounds.append(len(rounds))
                connection.execute("INSERT INTO busy VALUES (%s)", [10_000 + len(rounds)])
                connection.execute("DELETE FROM busy WHERE id = %s", [len(rounds)])

    writer = Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: len(rounds) > 10, 20, "the writer has begun")
        taken = drilled.backup()
    finally:
        stop.set()
        writer.join()
    report = drill(drilled.services(), drilled.cluster, DrillRequest())

    assert report.verdict == "proven", report.reason
    assert [check.name for check in report.checks] == CHECKS
    assert {check.outcome for check in report.checks} == {"passed"}
    kinds = {table.table.rpartition(".")[2]: table.kind for table in report.tables}
    assert kinds == {"busy": "within_bounds", "still": "equal", "forgotten": "unlogged"}
    assert list(report.phases_ms) == [phase.value for phase in DrillPhase]
    assert all(report.phases_ms[phase] > 0 for phase in ("fetch_apply", "recovery", "checks"))
    assert report.rto_ms == sum(report.phases_ms.values()) - report.phases_ms["checks"]
    assert (report.label, report.document_digest) == (taken.label, taken.digest)
    assert report.restored_bytes > 20_000_000
    assert scratch_of(drilled) == []
    # Signed evidence lies in the repository, and says the same.
    name = layout.drill_report(cluster_name(CLUSTER), report.id)
    services = drilled.services()
    assert read_report(services.store, name, services.pinned).report == report


def test_d03_the_same_drill_id_gives_the_same_report_without_another_restore(
    drilled: Site,
) -> None:
    drilled.backup()
    first = drill(drilled.services(), drilled.cluster, DrillRequest(drill_id="d1"))
    for volume in drilled.repository.glob("full/*/*/base.*"):
        volume.unlink()
    assert drill(drilled.services(), drilled.cluster, DrillRequest(drill_id="d1")) == first
    second = drill(drilled.services(), drilled.cluster, DrillRequest(drill_id="d2"))
    assert (second.verdict, second.checks[0].name) == ("failed", "restore")
    assert BackupIncomplete.code in second.reason


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        ("SELECT count(*) = 1000 FROM still;", "proven"),
        ("SELECT count(*) = 999 FROM still;", "failed"),
        ("CREATE TABLE written (id integer);", "failed"),
    ],
)
def test_v03_v05_validation_sql_decides_and_cannot_write(
    drilled: Site, statement: str, verdict: str
) -> None:
    file = drilled.folder / "validate.sql"
    file.write_text(statement)
    site = drilled.changed(cluster={"validation_sql": str(file)})
    site.backup()
    report = drill(site.services(), site.cluster, DrillRequest())
    assert report.verdict == verdict, report.reason
    (check,) = (check for check in report.checks if check.name == "validation_sql")
    assert check.outcome == ("passed" if verdict == "proven" else "failed")
    assert [name for name in scratch_of(site) if not name.endswith("-logs")] == []


def test_a_drill_of_a_damaged_backup_fails_and_says_what_is_damaged(drilled: Site) -> None:
    drilled.backup()
    volume = next(drilled.repository.glob("full/*/*/base.pgdata.0000"))
    damaged = flip_bit(volume.read_bytes(), volume.stat().st_size * 4)
    volume.chmod(0o600)
    volume.write_bytes(damaged)
    report = drill(drilled.services(), drilled.cluster, DrillRequest())
    assert report.verdict == "failed"
    assert "segment-corrupt" in report.reason
    assert "base.pgdata.0000" in report.reason
    assert [check.name for check in report.checks] == ["restore"]
    assert [name for name in scratch_of(drilled) if not name.endswith("-logs")] == []


def test_a_drill_that_lacks_the_programs_is_inconclusive(drilled: Site, tmp_path: Path) -> None:
    drilled.backup()
    site = drilled.changed(drill={"program_directories": [str(tmp_path)]})
    report = drill(site.services(), site.cluster, DrillRequest())
    if report.verdict != "inconclusive":
        pytest.skip("the system has PostgreSQL 17 in Debian's place")
    assert "program-missing" in report.reason


def test_a_validation_file_that_is_gone_is_told_and_nothing_is_left(drilled: Site) -> None:
    drilled.backup()
    site = drilled.changed(cluster={"validation_sql": "/nowhere/validate.sql"})
    with pytest.raises(SettingsInvalid, match=r"/nowhere/validate\.sql"):
        drill(site.services(), site.cluster, DrillRequest())
    assert [name for name in scratch_of(site) if not name.endswith("-logs")] == []
