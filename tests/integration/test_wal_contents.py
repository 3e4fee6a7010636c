"""What pgkeep reads in real WAL, against pg_waldump of the version that wrote it."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segment_start
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster, make_standby
from worker.postgres.wal_page import WalContents, check_segment, look_into

pytestmark = pytest.mark.integration

OPTIONS = ClusterOptions(
    wal_segment_mb=1,
    settings={"max_prepared_transactions": "5", "wal_level": "logical", "wal_keep_size": "256MB"},
)
_END = re.compile(r"desc: (?:COMMIT|ABORT)(?:_PREPARED \d+:)? (\S+ \S+) UTC")
_POINT = re.compile(r"lsn: ([0-9A-F/]+),.* desc: RESTORE_POINT (.*)")


@dataclass(frozen=True)
class Judged:
    """What pg_waldump says that a segment holds; a restore point's time it does not tell."""

    first_commit: datetime | None
    last_commit: datetime | None
    points: list[tuple[Lsn, str]]


def judge(server: PostgresServer, segment: Path) -> Judged:
    # It ends with status 1 where the WAL does.
    lines = subprocess.run(
        [server.programs / "pg_waldump", "-r", "Transaction", "-r", "XLOG", segment],
        check=False,
        capture_output=True,
        text=True,
        env={"TZ": "UTC", "LC_ALL": "C"},
    ).stdout.splitlines()
    ends = [
        datetime.fromisoformat(f"{found[1]}+00:00") for found in map(_END.search, lines) if found
    ]
    points = [(Lsn.parse(found[1]), found[2]) for found in map(_POINT.search, lines) if found]
    return Judged(min(ends[:1], default=None), max(ends[-1:], default=None), points)


def segments(server: PostgresServer) -> Iterator[tuple[WalFileName, Path]]:
    for path in sorted((server.data / "pg_wal").iterdir()):
        if len(path.name) == 24:
            yield WalFileName.parse(path.name), path


def mixed_load(sql: psycopg.Connection) -> None:
    """Short and long commits, aborts, both ends of a prepared one, savepoints, full-page images."""
    sql.execute("CREATE TABLE item (id integer PRIMARY KEY, body text)")
    sql.execute("SELECT pg_create_restore_point('empty')")
    for number in range(300):
        sql.execute("INSERT INTO item VALUES (%s, %s)", [number, "x" * (number % 97)])
    sql.execute("CHECKPOINT")
    sql.execute("UPDATE item SET body = body || '!'")
    for number, end in enumerate(["COMMIT PREPARED 'p'", "ROLLBACK PREPARED 'p'"]):
        sql.execute("BEGIN")
        sql.execute("INSERT INTO item VALUES (%s, 'p')", [1_000 + number])
        sql.execute("PREPARE TRANSACTION 'p'")
        sql.execute(end)
    sql.execute("SELECT pg_create_restore_point('before the drop, täglich')")
    sql.execute(
        "DO $$ BEGIN FOR n IN 1..60 LOOP EXECUTE 'CREATE TABLE t' || n || '()'; END LOOP; END $$"
    )
    sql.execute("DO $$ BEGIN FOR n IN 1..60 LOOP EXECUTE 'DROP TABLE t' || n; END LOOP; END $$")
    with sql.transaction(force_rollback=True):
        sql.execute("INSERT INTO item SELECT n, 'rolled back' FROM generate_series(2000, 2100) n")
    with sql.transaction(), sql.transaction():
        sql.execute("INSERT INTO item VALUES (3000, 'in a subtransaction')")
        sql.execute("SELECT pg_create_restore_point(repeat('n', 63))")
    sql.execute("SELECT pg_switch_wal()")
    # Records of most of a segment: no transaction ends in some of them.
    sql.execute(
        "INSERT INTO item SELECT n, repeat(md5(n::text), 60) FROM generate_series(4000, 6000) n"
    )
    sql.execute("SELECT pg_logical_emit_message(true, 'big', repeat('b', 1500000))")
    sql.execute("SELECT pg_create_restore_point('end')")
    sql.execute("INSERT INTO item VALUES (-1, 'a commit flushes, a restore point does not')")


@pytest.mark.postgres
def test_times_and_restore_points_are_those_that_pg_waldump_prints(
    make_cluster: MakeCluster,
) -> None:
    server = make_cluster(OPTIONS)
    with closing(server.connect()) as sql:
        mixed_load(sql)
        (system,) = (
            sql.execute("SELECT system_identifier FROM pg_control_system()").fetchone() or ()
        )
    found: dict[WalFileName, WalContents] = {}
    for name, path in segments(server):
        content = path.read_bytes()
        if not any(content[:40]):
            continue  # made in advance
        head = check_segment(name, content, system_identifier=system, total_size=len(content))
        assert head.major == server.major
        found[name] = contents = look_into(content, segment_start(name, head.segment_size))
        points = [(point.lsn, point.name) for point in contents.points]
        assert judge(server, path) == Judged(contents.first_commit, contents.last_commit, points)
    names = [point.name for contents in found.values() for point in contents.points]
    assert names == ["empty", "before the drop, täglich", "n" * 63, "end"]
    without = [name for name, contents in found.items() if contents.first_commit is None]
    assert without, "the load left no segment in which no transaction ends"
    assert len(found) - len(without) > 2


def test_w05_the_first_segment_of_a_new_timeline_is_one(make_cluster: MakeCluster) -> None:
    """It is copied from the old one's last, up to the switch."""
    primary = make_cluster(OPTIONS)
    standby = make_standby(primary, primary.directory / "standby")
    standby.start()
    try:
        with closing(primary.connect()) as sql:
            mixed_load(sql)
            (end,) = sql.execute("SELECT pg_current_wal_lsn()").fetchone() or ()
        with closing(standby.connect()) as sql:
            wait_until(
                lambda: sql.execute(
                    "SELECT 1 WHERE pg_last_wal_replay_lsn() >= %s", [end]
                ).fetchone(),
                30,
                "the standby follows",
            )
            sql.execute("SELECT pg_promote()")
            sql.execute("CREATE TABLE after_promotion ()")
            (system,) = (
                sql.execute("SELECT system_identifier FROM pg_control_system()").fetchone() or ()
            )
        name, path = next((name, path) for name, path in segments(standby) if name.timeline == 2)
        content = path.read_bytes()
        head = check_segment(name, content, system_identifier=system, total_size=len(content))
        assert head.timeline == 1
        contents = look_into(content, segment_start(name, head.segment_size))
        judged = judge(standby, path)
        assert (contents.first_commit, contents.last_commit) == (
            judged.first_commit,
            judged.last_commit,
        )
    finally:
        standby.stop()
