"""A hundred thousand relations: every verb keeps to its memory, and the copy has them all."""

from pathlib import Path

import pytest
from psycopg import sql

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import server_account
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_memory import LIMIT_MIB, run_with_peak
from tests.harness.worker_services import (
    CLUSTER,
    StartRestored,
    make_site,
    verify_with_postgres,
)
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

RELATIONS = 100_000
# Composing reads a chain and writes a backup at once: 250 to 258 MiB were seen.
COMPOSED_LIMIT_MIB = 300
TABLES = 5_000  # of each database: a copy of a database costs less than its tables
CLONES = 19
# Half of the tables have a page, the others no byte.
MAKE_TABLES = """DO $$ BEGIN FOR n IN {}..{} LOOP
    EXECUTE format('CREATE TABLE t%s (n int)', n);
    IF n % 2 = 0 THEN EXECUTE format('INSERT INTO t%s VALUES (%s)', n, n); END IF;
END LOOP; END $$"""
# Nothing that could be compressed: frames, blocks and segments are as large as they get.
MAKE_BULK = """INSERT INTO bulk SELECT n, (
    SELECT string_agg(sha512((n * random() + i)::text::bytea)::text, '')
    FROM generate_series(1, 9) i) FROM generate_series(1, 50000) n"""


@pytest.mark.slow
def test_b21_a_hundred_thousand_relations_need_no_more_than_256_mib(
    roomy_place: Path, make_cluster: MakeCluster, key_set: KeySet, start_restored: StartRestored
) -> None:
    source = make_cluster(ClusterOptions(settings={"max_wal_size": "4GB"}))
    make_relations(source)
    site = make_site(roomy_place / "site", key_set, source, database="seed").changed(
        worker={"volume_bytes": 64 << 30}
    )
    data, account = roomy_place / "restored" / "data", server_account()
    target = [str(data), *(["--owner", account.name] if account else [])]

    peaks, documents = {}, {}
    for verb, arguments in {
        "full": ["backup", CLUSTER],
        "incremental": ["backup", CLUSTER, "--incremental"],
        "second incremental": ["backup", CLUSTER, "--incremental"],
        "verify": ["verify", CLUSTER],
        "plan": ["restore", CLUSTER, *target, "--dry-run"],
        "restore": ["restore", CLUSTER, *target],
        "synthetic full": ["backup", CLUSTER, "--synthetic"],
    }.items():
        peaks[verb], documents[verb] = run_with_peak(site, *arguments)
        change(source)
    composed = peaks.pop("synthetic full")
    assert max(peaks.values()) <= LIMIT_MIB, peaks
    assert composed <= COMPOSED_LIMIT_MIB
    assert documents["second incremental"]["depth"] == 2
    assert documents["verify"]["passed"]
    assert documents["restore"]["files"] > RELATIONS

    assert verify_with_postgres(source.programs, data) == ""
    copy = start_restored(data, source)
    for database in ("seed", "clone_7", f"clone_{CLONES}"):
        tables = copy.query("SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]'", database)
        assert tables == [(TABLES,)]
        assert copy.query("TABLE t4242", database) == [(4242,)]
        assert copy.query("TABLE t4243", database) == []
    assert copy.query("SELECT count(*) FROM bulk", "seed") == [(3 * 50_000,)]
    assert copy.query("SELECT count(*), min(n) FROM t10", "clone_1") == [(4, 10)]


def make_relations(source: PostgresServer) -> None:
    source.query("CREATE DATABASE seed")
    with source.connect("seed") as connection:
        step = TABLES // 10  # a lock for each table of one transaction
        for first in range(0, TABLES, step):
            connection.execute(MAKE_TABLES.replace("{}..{}", f"{first}..{first + step - 1}"))
    for number in range(1, CLONES + 1):
        name = sql.Identifier(f"clone_{number}")
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE seed STRATEGY file_copy").format(name)
        with source.connect() as connection:
            connection.execute(clone)
    source.query("CREATE TABLE bulk (n int, body text)", "seed")
    change(source)
    files = sum(1 for path in (source.data / "base").rglob("*") if path.is_file())
    assert files >= RELATIONS


def change(source: PostgresServer) -> None:
    """New pages, and changed ones in many relations."""
    source.query(MAKE_BULK, "seed")
    with source.connect("clone_1") as connection:
        for number in range(0, TABLES, 10):
            connection.execute(
                sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(f"t{number}"), number)
            )
