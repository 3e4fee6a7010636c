"""A backup, commits after it, and every segment of their WAL in the archive.

Commit n inserts the row n into `ledger` and a heartbeat. After commit 2 there is a restore point,
and the server starts anew with more connections than a hot standby of the backup allows for. Before
the last commit comes `holed`, a heartbeat of 60 rows that lacks 40.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from local.document_database.heartbeat import create_heartbeat
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import make_reachable_directory, server_account
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName
from shared.errors import StorageUnavailable
from shared.repository import layout
from shared.repository.backups import read_cluster
from shared.repository.blob_store import BlobName, BlobStore
from tests.harness.postgres_clusters import programs_of
from tests.harness.worker_services import CLUSTER, Site, make_site
from worker.commands.wal_archive import WalArchive
from worker.commands.wal_reporter import LogReporter
from worker.keys.generate import KeySet

POINT: Final = "it's %n \\ half way"
COMMITS: Final = 5
_BEFORE_THE_POINT: Final = 2
_OPTIONS: Final = ClusterOptions(
    fsync=False,
    settings={
        "shared_buffers": "16MB",
        "max_connections": "40",
        "autovacuum": "off",
        "track_commit_timestamp": "on",
        "wal_keep_size": "512MB",
    },
)


@dataclass(frozen=True)
class Commit:
    """Row `n` of the ledger; `after` is where the WAL went on behind it."""

    n: int
    xid: int
    after: Lsn
    time: datetime


@dataclass(frozen=True)
class History:
    """Who damages the repository works on a copy, which lacks the metadata of its blobs."""

    source: PostgresServer
    site: Site
    commits: dict[int, Commit]
    segments: tuple[str, ...]

    def visited(self, folder: Path) -> Site:
        """The same repository, with settings and a scratch directory of its own."""
        folder.mkdir()
        site = replace(self.site, folder=folder)
        return site.changed(drill={"scratch": str(folder / "scratch")})

    def blob(self, number: int) -> BlobName:
        """Of the segment with this place in the order; -1 is the last."""
        return layout.wal_blob(cluster_name(CLUSTER), WalFileName.parse(self.segments[number]))

    @property
    def last(self) -> Commit:
        return self.commits[COMMITS]


class UnreadableBlob:
    """A store in which one blob cannot be read for now."""

    def __init__(self, store: BlobStore, name: BlobName) -> None:
        self._store, self._name = store, name

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._store, operation)

    def read(self, name: BlobName, *, limit: int) -> bytes:
        self._refuse(name)
        return self._store.read(name, limit=limit)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        self._refuse(name)
        return self._store.read_range(name, offset, length)

    def _refuse(self, name: BlobName) -> None:
        if name == self._name:
            raise StorageUnavailable(f"{name} cannot be read")


@contextmanager
def archived_history(major: int, keys: KeySet) -> Iterator[History]:
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(prefix="pgkeep-test-")))
        make_reachable_directory(place, server_account())
        source = PostgresServer.create(programs_of(major), place / "source", _OPTIONS)
        stack.enter_context(source)
        with source.connect() as sql:
            sql.execute("CREATE TABLE ledger (n integer PRIMARY KEY)")
            create_heartbeat(sql)
        site = make_site(place / "site", keys, source, database="postgres").changed(
            cluster={"heartbeat": "public.heartbeat"},
            wal={"socket": str(place / "wal" / "socket"), "spool": str(place / "spool")},
        )
        site.backup()
        commits = {n: _commit(source, n) for n in range(1, _BEFORE_THE_POINT + 1)}
        with source.connect() as sql:
            sql.execute("SELECT pg_create_restore_point(%s)", [POINT])
        _start_anew(source)
        for n in range(_BEFORE_THE_POINT + 1, COMMITS):
            commits[n] = _commit(source, n)
        _make_holed(source)
        commits[COMMITS] = _commit(source, COMMITS)
        yield History(source, site, commits, archive_wal(site, source))


def archive_wal(site: Site, source: PostgresServer) -> tuple[str, ...]:
    """Switch to a new segment and store every one before it; their names, oldest first."""
    services = site.services()
    identity = read_cluster(services.store, cluster_name(CLUSTER), services.pinned)
    assert identity is not None
    source.query("SELECT pg_switch_wal()")
    [(current,)] = source.query("SELECT pg_walfile_name(pg_current_wal_lsn() + 1)")
    folder = source.data / "pg_wal"
    names = sorted(path.name for path in folder.glob("0000*") if len(path.name) == len(current))
    done = tuple(name for name in names if name < current)
    with WalArchive(services, identity, LogReporter(), "agent") as archive:
        for name in done:
            archive.put(WalFileName.parse(name), (folder / name).read_bytes())
    return done


def _make_holed(source: PostgresServer) -> None:
    with source.connect() as sql:
        sql.execute("CREATE TABLE holed (LIKE heartbeat INCLUDING ALL)")
        sql.execute("INSERT INTO holed (at) SELECT clock_timestamp() FROM generate_series(1, 60)")
        sql.execute("DELETE FROM holed WHERE id BETWEEN 11 AND 50")


def _start_anew(source: PostgresServer) -> None:
    source.query("SELECT pg_switch_wal()")
    source.stop()
    source.configure({"max_connections": "60"})
    source.start()


def _commit(server: PostgresServer, n: int) -> Commit:
    with server.connect() as sql:
        with sql.transaction():
            sql.execute("INSERT INTO ledger VALUES (%s)", [n])
            sql.execute("INSERT INTO heartbeat DEFAULT VALUES")
            row = sql.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        after = sql.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        # Something stands between any two commits, so that a target behind one is not the next.
        sql.execute("SELECT pg_logical_emit_message(false, 'pgkeep', 'between')")
        time = sql.execute("SELECT pg_xact_commit_timestamp(%s::text::xid)", row).fetchone()
    assert after is not None
    assert time is not None
    return Commit(n, row[0], Lsn.parse(after[0]), time[0])
