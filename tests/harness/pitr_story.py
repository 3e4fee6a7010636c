"""A history to recover in: commits on two timelines, of which every exact place is known.

A primary is backed up and commits 1 to 4; its standby is promoted and commits 5 to 7; `pgkeep wal
receive` runs all the while. Commit n inserts the row n into `ledger`.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from psycopg.conninfo import make_conninfo

from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer, StopMode
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalPiece
from shared.repository import layout
from shared.settings import ClusterSettings
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import make_standby
from tests.harness.worker_services import CLUSTER, Site
from worker.commands.services import Services
from worker.commands.wal_receive import receive

HALF_WAY = "half way, it's %n \\ done"
AFTER_FAILOVER = "after_failover"
ON_FIRST_TIMELINE, ON_SECOND_TIMELINE = (1, 2, 3, 4), (5, 6, 7)
SOURCE = ClusterOptions(
    settings={
        "track_commit_timestamp": "on",
        "max_slot_wal_keep_size": "512MB",
        "wal_keep_size": "64MB",  # the standby keeps what the receiver may not have yet
    },
)
_LIMIT_S = 60


@dataclass(frozen=True)
class Commit:
    """Row `n`. `record` is where its commit record begins, `after` where the next one will."""

    n: int
    xid: int
    record: Lsn
    after: Lsn
    time: datetime


@dataclass
class Story:
    site: Site
    commits: dict[int, Commit] = field(default_factory=dict)


@contextmanager
def receiving(services: Services, cluster: ClusterSettings) -> Iterator[None]:
    """`pgkeep wal receive` in a thread; what it raised is raised at the end."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        done = executor.submit(receive, services, cluster, stop=stop)
        try:
            yield
        finally:
            stop.set()
            done.result(_LIMIT_S)


def tell(site: Site, primary: PostgresServer, standby_directory: Path) -> Story:
    """Plays the whole history; afterwards both servers are stopped and the archive is complete."""
    story = Story(_with_both_servers(site, primary, primary))
    primary.query("CREATE TABLE ledger (n integer PRIMARY KEY)")
    standby = make_standby(primary, standby_directory)
    standby.start()
    story.site = _with_both_servers(site, primary, standby)
    try:
        with receiving(story.site.services(), story.site.cluster):
            story.site.backup()
            _commit_all(story, primary, ON_FIRST_TIMELINE, HALF_WAY)
            _fail_over(primary, standby)
            _commit_all(story, standby, ON_SECOND_TIMELINE, AFTER_FAILOVER)
            _await_archived(story.site, 2, story.commits[7].after)
    finally:
        standby.stop(StopMode.IMMEDIATE)
    return story


def archived_through(site: Site, timeline: int) -> Lsn:
    """The highest position of which any blob of the timeline tells, in segments of 16 MiB."""
    store, size = site.services().store, 16 << 20
    ends = [Lsn(0)]
    for blob in store.list(layout.WAL, layout.wal_prefix(cluster_name(CLUSTER), timeline)):
        _, item = layout.parse_wal(blob.name)
        start = item.log * 2**32 + item.segment * size
        ends.append(Lsn(start + (item.stop if isinstance(item, WalPiece) else size)))
    return max(ends)


def _with_both_servers(site: Site, *servers: PostgresServer) -> Site:
    conninfo = make_conninfo(
        servers[0].dsn("postgres", BACKUP_USER),
        host=",".join("127.0.0.1" for _ in servers),
        port=",".join(str(server.port) for server in servers),
        target_session_attrs="read-write",
    )
    cluster = {"dsn": conninfo, "database": "postgres", "wal": {"flush_seconds": 0.3}}
    return site.changed(cluster=cluster)


def _commit_all(story: Story, server: PostgresServer, numbers: tuple[int, ...], point: str) -> None:
    half = numbers[len(numbers) // 2 - 1]
    for n in numbers:
        story.commits[n] = _commit(server, n)
        if n == half:
            with server.connect() as sql:
                sql.execute("SELECT pg_create_restore_point(%s)", [point])
                sql.execute("SELECT pg_switch_wal()")


def _commit(server: PostgresServer, n: int) -> Commit:
    with server.connect() as sql:
        with sql.transaction():
            sql.execute("INSERT INTO ledger VALUES (%s)", [n])
            row = sql.execute(
                "SELECT pg_current_xact_id()::text::bigint, pg_current_wal_insert_lsn()::text"
            ).fetchone()
        assert row is not None
        xid, record = row
        after = sql.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        # Something stands between any two commits, so that a target behind one is not the next.
        sql.execute("SELECT pg_logical_emit_message(false, 'pgkeep', 'between')")
        time = sql.execute("SELECT pg_xact_commit_timestamp(%s::text::xid)", [xid]).fetchone()
    assert after is not None
    assert time is not None
    return Commit(n, xid, Lsn.parse(record), Lsn.parse(after[0]), time[0])


def _fail_over(primary: PostgresServer, standby: PostgresServer) -> None:
    """In order: a fast shutdown waits until its standby and the receiver have everything."""
    primary.stop()
    standby.query("SELECT pg_promote(wait => true)")


def _await_archived(site: Site, timeline: int, lsn: Lsn) -> None:
    wait_until(
        lambda: archived_through(site, timeline) > lsn, _LIMIT_S, f"{lsn} of {timeline} is archived"
    )
