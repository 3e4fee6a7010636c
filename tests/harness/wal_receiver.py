"""`pgkeep wal receive` in a thread, and what it must leave behind: the server's WAL, bit by bit."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.wal_inventory import WalInventory
from shared.domain.wal_segment import WalFileName, segment_start, segments_between
from shared.repository import layout
from shared.repository.backups import read_cluster
from shared.repository.wal_listing import archived_wal
from tests.harness.deadline import wait_until
from tests.harness.worker_services import CLUSTER, Site
from worker.commands.services import Services
from worker.commands.wal_reader import WalReader
from worker.commands.wal_receive import receive

LIMIT_S = 30
FLUSH_S = 0.3
MIB = 1 << 20
SEGMENT = 16 * MIB
# WAL stays in pg_wal, where the archive is compared with it.
KEEPING = {"wal_keep_size": "2GB", "max_slot_wal_keep_size": "3GB"}
SMALL = ClusterOptions(wal_segment_mb=1, settings=KEEPING)


@dataclass(frozen=True)
class Receiver:
    """One that runs in a thread of its own."""

    done: Future[None]
    stopping: threading.Event

    def stop(self) -> None:
        """In order; raises what it raised."""
        self.stopping.set()
        self.done.result(LIMIT_S)


@contextmanager
def receiving(site: Site, **changes: Any) -> Iterator[Receiver]:
    """`changes` replace some of the services. At the end it is stopped, and must end well."""
    services: Services = site.services(**changes)
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        done = executor.submit(receive, services, site.cluster, stop=stopping)
        receiver = Receiver(done, stopping)
        try:
            yield receiver
        finally:
            stopping.set()
        receiver.stop()


def with_wal(site: Site, **wal: Any) -> Site:
    """Tails after FLUSH_S; `wal` goes into [cluster.wal]."""
    return site.changed(cluster={"wal": {"flush_seconds": FLUSH_S, **wal}})


def write_wal(server: PostgresServer, megabytes: int = 1) -> Lsn:
    """So much, of no use to anybody, in one transaction; the position when it is committed."""
    with server.connect() as connection:
        connection.execute(
            "SELECT count(pg_logical_emit_message(true, 'fill', repeat(md5(n::text), 32768)))"
            " FROM generate_series(1, %s) n",
            [megabytes],
        )
    return position(server)


def position(server: PostgresServer) -> Lsn:
    """How far the server has flushed, or received."""
    ((lsn,),) = server.query(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()"
        " ELSE pg_current_wal_flush_lsn() END::text"
    )
    return Lsn.parse(lsn)


def restart_lsn(server: PostgresServer, slot: str = "pgkeep") -> Lsn | None:
    """Where the slot holds back WAL; None without such a slot."""
    with server.connect() as connection:
        query = "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
        row = connection.execute(query, [slot]).fetchone()
    return Lsn.parse(row[0]) if row and row[0] else None


def flushed(server: PostgresServer) -> Lsn | None:
    """What the receiver has acknowledged; None while it is not connected."""
    rows = server.query(
        "SELECT flush_lsn::text FROM pg_stat_replication WHERE application_name = 'pgkeep'"
    )
    return Lsn.parse(rows[0][0]) if rows and rows[0][0] else None


def wait_until_sent(server: PostgresServer, lsn: Lsn) -> None:
    with server.connect() as connection:
        query = "SELECT 1 FROM pg_stat_replication WHERE sent_lsn >= %s::pg_lsn"
        wait_until(
            lambda: connection.execute(query, [str(lsn)]).fetchall(), LIMIT_S, f"{lsn} is sent"
        )


def wait_until_flushed(server: PostgresServer, lsn: Lsn) -> None:
    wait_until(lambda: (flushed(server) or 0) >= lsn, LIMIT_S, f"{lsn} is acknowledged")


def inventory(site: Site, segment_size: int = SEGMENT) -> WalInventory:
    """What the archive holds."""
    store = site.services().store
    blobs = store.list(layout.WAL, layout.wal_prefix(cluster_name(CLUSTER)))
    items = (archived_wal(info, segment_size) for info in blobs)
    return WalInventory().adding(item for item in items if item)


def durable_end(site: Site, timeline: int = 1, segment_size: int = SEGMENT) -> Lsn:
    """The end of what the archive holds from its first byte on without a hole."""
    first = inventory(site, segment_size).through(timeline)
    return first.end if first else Lsn(0)


def reader(site: Site) -> WalReader:
    services = site.services()
    document = read_cluster(services.store, cluster_name(CLUSTER), services.pinned)
    assert document is not None, "the cluster is registered"
    return WalReader(services, document)


def assert_archive_is(
    site: Site, pg_wal: Path, end: Lsn, *, timeline: int = 1, segment_size: int = SEGMENT
) -> Lsn:
    """The archive has the timeline from some segment on up to `end`, without a hole, as pg_wal has
    it. Where it begins.
    """
    (stretch,) = inventory(site, segment_size).of(timeline)
    assert stretch.end >= end, f"the archive ends at {stretch.end}, not at {end}"
    archive = reader(site)
    for name in segments_between(timeline, stretch.start, end, segment_size):
        segment = WalFileName.parse(name)
        length = min(segment_size, end - segment_start(segment, segment_size))
        read = archive.read_segment(segment)
        assert len(read.content) == segment_size, name
        assert read.content[:length] == (pg_wal / name).read_bytes()[:length], name
        assert read.complete or stretch.end < segment_start(segment, segment_size) + segment_size
    return stretch.start
