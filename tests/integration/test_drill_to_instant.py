"""Drills beyond the backup: to the latest instant, a given one, one at random."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.domain.drill import CheckOutcome
from shared.domain.drill_target import chance_of, instant_between
from shared.domain.recovery_target import ToTime
from shared.errors import Unavailable
from shared.repository import layout
from shared.repository.backups import list_backups, read_backup
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import DrillReport
from shared.repository.read_only_store import ReadOnlyStore
from shared.repository.reports import read_report
from tests.harness.archived_history import (
    COMMITS,
    History,
    UnreadableBlob,
    archived_history,
)
from tests.harness.postgres_clusters import DEFAULT_MAJOR
from tests.harness.worker_services import CLUSTER, Site
from worker.commands import printed_recovery
from worker.commands.drill import DrillRequest, drill
from worker.commands.recovery_rates import estimate
from worker.commands.restore import plan_only
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CHECKS = [
    "opens",
    "target_reached",
    "heartbeat",
    "row_counts",
    "collations",
    "pg_amcheck",
    "page_checksums",
]


@pytest.fixture(scope="module")
def history(key_set: KeySet) -> Iterator[History]:
    with archived_history(DEFAULT_MAJOR, key_set) as ready:
        yield ready


@pytest.fixture
def site(history: History, place: Path) -> Site:
    return history.visited(place / "site")


def drilled(site: Site, target: str, **changes: Any) -> DrillReport:
    return drill(site.services(**changes), site.cluster, DrillRequest(target=target))


def outcomes(report: DrillReport) -> dict[str, str]:
    return {check.name: check.outcome.value for check in report.checks}


def heartbeat_at(source: PostgresServer, n: int) -> datetime:
    with source.connect() as sql:
        row = sql.execute("SELECT at FROM heartbeat WHERE id = %s", [n]).fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


def test_a_drill_to_the_latest_instant_replays_everything_and_tells_what_would_be_lost(
    history: History, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = history.last.time + timedelta(seconds=90)
    services = site.services()
    clocks = replace(services.clocks, now=lambda: asked)
    report = drilled(site, "latest", clocks=clocks)
    assert report.verdict == "proven", report.reason
    assert [check.name for check in report.checks] == CHECKS
    assert outcomes(report)["row_counts"] == CheckOutcome.SKIPPED
    assert report.target == "latest (the end of the archived WAL)"
    assert report.timeline == 1
    assert report.reached_lsn is not None
    assert report.reached_lsn >= history.last.after
    assert report.reached_time == history.last.time
    assert report.replayed_bytes > 2 * (16 << 20)
    assert report.wal_segments >= len(history.segments) - 1
    beat = heartbeat_at(history.source, COMMITS)
    assert report.rpo_ms == round((asked - beat).total_seconds() * 1000)
    printed_recovery.drill_report(report, as_json=False)
    said = capsys.readouterr().out
    assert f"reached {report.reached_lsn} on timeline 1" in said
    assert f"RPO {report.rpo_ms / 1000:.1f} s" in said
    assert report.phases_ms["replay"] > 0
    assert report.rto_ms == sum(report.phases_ms.values()) - report.phases_ms["checks"]
    assert list((site.folder / "scratch").iterdir()) == []
    name = layout.drill_report(cluster_name(CLUSTER), report.id)
    assert read_report(services.store, name, services.pinned).report == report
    # What the drill measured is what the next plan counts with.
    prepared = plan_only(services, site.request(site.folder / "data"))
    assert report.id in estimate(services, prepared).replay.source


def test_a_drill_to_an_instant_ends_there_and_its_lost_time_counts_to_it(
    history: History, site: Site
) -> None:
    third = history.commits[3]
    done = site.pgkeep("drill", CLUSTER, "--to", third.time.isoformat(), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = DrillReport.model_validate_json(done.stdout)
    assert report.verdict == "proven", report.reason
    assert report.reached_time == third.time
    beat = heartbeat_at(history.source, 3)
    assert report.rpo_ms == round((third.time - beat).total_seconds() * 1000)
    refused = site.pgkeep("drill", CLUSTER, "--to", "soon")
    assert refused.returncode == 2
    assert "recovery-target-invalid" in refused.stderr


def test_a_drill_to_a_random_instant_goes_where_its_id_sends_it_and_says_so(
    history: History, site: Site
) -> None:
    services = site.services()
    [ref] = list_backups(services.store, cluster_name(CLUSTER))
    begin = read_backup(services.store, ref, services.pinned).document.finished_at
    end = history.last.time
    drill_id = next(
        one for one in map(str, count()) if instant(begin, end, one) > history.commits[3].time
    )
    report = drill(services, site.cluster, DrillRequest(target="random", drill_id=drill_id))
    assert report.verdict == "proven", report.reason
    assert report.target == f"random ({ToTime(instant(begin, end, drill_id))})"
    assert report.reason.startswith(f"drawn by the drill's id from {begin} to {end}; ")
    assert report.reached_time is not None
    assert history.commits[2].time < report.reached_time < end


def instant(begin: datetime, end: datetime, drill_id: str) -> datetime:
    return instant_between(begin, end, chance_of(drill_id, "instant"))


def test_a_drill_from_the_secondary_reads_its_wal_there_too(
    history: History, site: Site, place: Path
) -> None:
    primary = DirectoryBlobStore(place / "primary")  # where nothing is left
    primary.create_container(layout.EVIDENCE)
    services = site.services()
    changed = replace(services, store=primary, secondary=ReadOnlyStore(services.store))
    request = DrillRequest(target="latest", from_secondary=True)
    report = drill(changed, site.cluster, request)
    assert report.verdict == "proven", report.reason
    assert (report.reached_time, report.from_secondary) == (history.last.time, True)
    name = layout.drill_report(cluster_name(CLUSTER), report.id)
    assert read_report(primary, name, services.pinned).report == report


def test_without_wal_a_random_drill_proves_the_backup_and_says_so(
    history: History, place: Path
) -> None:
    site = history.site.copied(place / "without-wal")
    for segment in (site.repository / "wal").rglob("0*"):
        if segment.is_file():
            segment.unlink()
    report = drilled(site, "random")
    assert report.verdict == "proven", report.reason
    assert "the archive has no commit from after the backup" in report.reason
    assert (report.target, report.reached_lsn, report.rpo_ms) == ("random", None, None)
    assert "target_reached" not in outcomes(report)
    # The latest instant is then the backup's end, and everything since would be lost.
    latest = drilled(site, "latest")
    assert outcomes(latest)["target_reached"] == "passed"
    assert outcomes(latest)["heartbeat"] == "inconclusive"
    assert latest.reached_lsn is not None
    assert latest.reached_lsn < history.commits[1].after
    unknown = drilled(site, "2020-01-01T00:00:00Z")
    assert (unknown.verdict, unknown.rpo_ms) == ("inconclusive", None)
    assert "target-unreachable" in unknown.reason


def test_a_heartbeat_that_lacks_rows_fails_the_drill(site: Site) -> None:
    report = drilled(site.changed(cluster={"heartbeat": "public.holed"}), "latest")
    assert report.verdict == "failed"
    (check,) = (check for check in report.checks if check.name == "heartbeat")
    assert check.outcome == CheckOutcome.FAILED
    assert "20 since the backup, 40 numbers missing" in check.detail
    assert outcomes(report)["page_checksums"] == "passed"


def test_damaged_wal_fails_the_drill_and_silent_storage_does_not(
    history: History, place: Path
) -> None:
    site = history.site.copied(place / "damaged")
    store = UnreadableBlob(site.services().store, history.blob(-1))
    with pytest.raises(Unavailable):
        drilled(site, "latest", store=store)
    blob = site.repository / str(history.blob(-1))
    blob.chmod(0o600)
    blob.write_bytes(bytes(blob.stat().st_size))
    report = drilled(site, "latest")
    assert report.verdict == "failed"
    assert history.segments[-1] in report.reason
    assert [check.name for check in report.checks] == ["restore"]
    assert [path.name for path in (site.folder / "scratch").glob("*-wal")] == []
