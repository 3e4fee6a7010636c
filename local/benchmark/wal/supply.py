"""The WAL that all contenders move: real segments, and a plain copy of the cluster before them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from local.benchmark.place import Place, environment
from local.benchmark.source import DATABASE, make_orders
from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import hand_over, identity
from shared.domain.wal_segment import WalFileName, segment_start, segments_between

SEGMENT = 16 << 20
# A burst of about 9 MB of WAL, by rows that are copied; then the table is emptied, so that a
# replay of gigabytes needs no disk for them.
_ROWS = 50_000
_BURSTS_UNTIL_EMPTIED = 8
_BASE_LIMIT_S = 120
_START = re.compile(r"START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)")


@dataclass(frozen=True, slots=True)
class Supply:
    """`folder` holds the files `names`, consecutive; `base` needs all of them and no others.

    `server` still runs, quiet, and can write more.
    """

    server: PostgresServer
    base: Path
    folder: Path
    names: tuple[str, ...]


@contextmanager
def running_supply(place: Place, programs: Path, segments: int) -> Iterator[Supply]:
    """A small server that has just written so many segments."""
    settings = {
        "autovacuum": "off",
        "max_connections": "20",
        "shared_buffers": "256MB",
        "max_wal_size": "64GB",
        "checkpoint_timeout": "1h",  # full-page images once, as in the middle of any busy hour
        "wal_keep_size": "32GB",
    }
    options = ClusterOptions(fsync=False, backup_user_reads_data=True, settings=settings)
    with PostgresServer.create(programs, place.work / "wal-source", options) as server:
        server.query(f"create database {DATABASE}")
        with server.connect(DATABASE) as connection:
            make_orders(connection)
            connection.execute("create table burst (like orders)")
        base = _copy_cluster(place, server)
        write_wal(server, segments)
        names = _names(base, segments)
        yield Supply(server, base, _collect(place, server, names), names)


def write_wal(server: PostgresServer, segments: int) -> None:
    """At least so many whole segments of rows; the last one is closed."""
    with server.connect(DATABASE) as connection:
        start, bursts = _position(connection), 0
        while _position(connection) - start < segments * SEGMENT:
            connection.execute("insert into burst select * from orders")
            bursts += 1
            if bursts % _BURSTS_UNTIL_EMPTIED == 0:
                connection.execute("truncate burst")
        connection.execute("select pg_switch_wal()")


def copy_of_base(supply: Supply, place: Place, target: Path) -> None:
    """The plain copy at `target`, not started, as PostgreSQL's account wants it."""
    shutil.copytree(supply.base, target, symlinks=True)
    hand_over(target, place.account)


def _copy_cluster(place: Place, server: PostgresServer) -> Path:
    base = place.folder("wal-base") / "data"
    command = [
        str(server.programs / "pg_basebackup"),
        f"--pgdata={base}",
        f"--dbname={server.dsn(user=BACKUP_USER)}",
        *("--checkpoint=fast", "--wal-method=none", "--no-sync"),
    ]
    subprocess.run(
        command,
        check=True,
        cwd="/",
        env=environment(),
        capture_output=True,
        timeout=_BASE_LIMIT_S,
        **identity(place.account),
    )
    return base


def _names(base: Path, segments: int) -> tuple[str, ...]:
    """From the one that the copy's recovery begins with."""
    label = (base / "backup_label").read_text("utf-8")
    [first] = _START.findall(label)
    name = WalFileName.parse(first)
    start = segment_start(name, SEGMENT)
    stop = start + segments * SEGMENT
    return tuple(segments_between(name.timeline, start, stop, SEGMENT))


def _collect(place: Place, server: PostgresServer, names: tuple[str, ...]) -> Path:
    folder = place.folder("wal-segments")
    for name in names:
        shutil.copyfile(server.data / "pg_wal" / name, folder / name)
    hand_over(folder, place.account)
    return folder


def _position(connection: psycopg.Connection) -> int:
    [(position,)] = connection.execute("select pg_current_wal_lsn() - '0/0'").fetchall()
    return int(position)
