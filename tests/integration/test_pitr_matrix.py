"""Every kind of target, inclusive and exclusive, on both sides of a promotion.

PostgreSQL itself says where each recovery ended: the rows of `ledger` that are there. One history
per version serves all targets; each target is a restore of its own, in a process of its own.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from local.postgres_server import PostgresServer, StopMode
from local.unprivileged import server_account
from shared.domain.cluster import cluster_name
from shared.repository import layout
from shared.repository.blob_store import BlobName
from tests.harness.pitr_story import (
    AFTER_FAILOVER,
    HALF_WAY,
    SOURCE,
    Commit,
    Story,
    tell,
)
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_services import CLUSTER, Site, make_site
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

Expected = Mapping[str, tuple[list[str], int]]


@pytest.mark.postgres
def test_every_target_is_met_exactly_on_both_sides_of_a_promotion(
    make_cluster: MakeCluster, place: Path, key_set: KeySet
) -> None:
    primary = make_cluster(SOURCE)
    site = make_site(place / "site", key_set, primary, database="postgres")
    story = tell(site, primary, place / "standby")
    expected = targets(story.commits)
    found = recover_all(story, primary, place, expected)
    assert found == {name: rows for name, (_, rows) in expected.items()}
    refusals(story, place)
    target_in_a_segment_that_only_the_next_timeline_has(story, primary, place)


def targets(commits: Mapping[int, Commit]) -> Expected:
    """Name → options, and the last row that must be there."""
    before = commits[1].time - timedelta(milliseconds=1)
    one = {
        "immediate": (["--immediate"], 0),
        "latest": (["--to-latest"], 7),
        "latest of the first timeline": (["--to-latest", "--timeline", "1"], 4),
        "the name on the first timeline": (["--to-name", HALF_WAY], 2),
        "the name on the second timeline": (["--to-name", AFTER_FAILOVER], 5),
        "just before the first commit": (["--to-time", before.isoformat()], 0),
    }
    for n in (3, 6):
        commit = commits[n]
        times = [
            ("time", ["--to-time", commit.time.isoformat()]),
            ("xid", ["--to-xid", str(commit.xid)]),
            ("lsn of the record", ["--to-lsn", str(commit.record)]),
        ]
        for name, options in times:
            one[f"{name} of {n}, inclusive"] = (options, n)
            one[f"{name} of {n}, exclusive"] = ([*options, "--exclusive"], n - 1)
        one[f"lsn behind {n}"] = (["--to-lsn", str(commit.after), "--exclusive"], n)
    return one


def recover_all(
    story: Story, source: PostgresServer, place: Path, expected: Expected
) -> dict[str, int | str]:
    def one(item: tuple[int, list[str]]) -> int | str:
        return recover(story.site, source, place / f"r{item[0]}", item[1])

    with ThreadPoolExecutor(2) as executor:
        options = enumerate(options for options, _ in expected.values())
        return dict(zip(expected, executor.map(one, options), strict=True))


def recover(site: Site, source: PostgresServer, folder: Path, options: list[str]) -> int | str:
    """The last row of the ledger after the recovery, or what the refusal says."""
    folder.mkdir(mode=0o711)
    done = restore(site, folder / "data", *options, "--recover")
    if done.returncode != 0:
        return done.stdout + done.stderr
    server = PostgresServer(source.programs, folder, source.passwords)
    try:
        server.start()
        [(last, missing)] = server.query(
            "SELECT coalesce(max(n), 0), coalesce(max(n), 0) - count(*) FROM ledger"
        )
    finally:
        server.stop(StopMode.IMMEDIATE)
        shutil.rmtree(folder)
    assert missing == 0, "an earlier commit is not there"
    return int(last)


def restore(site: Site, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    account = server_account()
    owner = ["--owner", account.name] if account else []
    return site.pgkeep("restore", CLUSTER, str(target), *options, *owner, "--json")


def refusals(story: Story, place: Path) -> None:
    """What cannot be reached is refused with reasons, before a byte is written."""
    last, first = story.commits[7], story.commits[1]
    impossible = {
        "later than the last commit": ["--to-time", (last.time + timedelta(hours=1)).isoformat()],
        "before the backup": ["--to-time", (first.time - timedelta(days=1)).isoformat()],
        "behind the archive": ["--to-lsn", "FF/0"],
        "an unknown name": ["--to-name", "never_made"],
        "an unknown timeline": ["--to-latest", "--timeline", "9"],
        "a commit of the other timeline": ["--to-lsn", str(last.after), "--timeline", "1"],
    }
    for name, options in impossible.items():
        done = restore(story.site, place / "refused", *options)
        assert done.returncode == 3, (name, done.stdout, done.stderr)
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "target-unreachable", name
        assert "--to-" in error["hint"] or "--timeline" in error["hint"], (name, error)
        assert not (place / "refused").exists(), name


def target_in_a_segment_that_only_the_next_timeline_has(
    story: Story, source: PostgresServer, place: Path
) -> None:
    """Scenario of PostgreSQL's 028_pitr_timelines, with the old timeline's last segment lost."""
    site = story.site.copied(place / "without-the-last-segment")
    store = site.services().store

    def of_timeline(timeline: int) -> list[tuple[BlobName, int]]:
        prefix = layout.wal_prefix(cluster_name(CLUSTER), timeline)
        blobs = store.list(layout.WAL, prefix)
        return [(blob.name, layout.parse_wal(blob.name)[1].segment) for blob in blobs]

    shared = min(segment for _, segment in of_timeline(2))
    lost = [name for name, segment in of_timeline(1) if segment >= shared]
    assert lost
    for name in lost:
        store.delete(name)
    options = ["--to-lsn", str(story.commits[4].after), "--exclusive", "--timeline", "1"]
    assert recover(site, source, place / "only-on-two", options) == 4
