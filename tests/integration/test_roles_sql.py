"""infra/sql/roles.sql on real servers: it suffices for what pgkeep does, and allows nothing else.

And `pgkeep check` on a server that has none of it: what it prints is what has to be run.
"""

import re
import subprocess
from contextlib import closing
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.drill import Check, CheckOutcome
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.wal_receiver import receiving, with_wal
from tests.harness.worker_services import Site, make_site
from worker.commands.check import check
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.postgres]

ROLES = Path(__file__).parents[2] / "infra" / "sql" / "roles.sql"
DENIED = psycopg.errors.InsufficientPrivilege


def run_roles(server: PostgresServer) -> None:
    """As its head says."""
    psql = server.programs / "psql"
    done = subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", ROLES, server.dsn()],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def administer(server: PostgresServer, *statements: LiteralString) -> None:
    with closing(server.connect()) as superuser:
        for statement in statements:
            superuser.execute(statement)


def set_password(server: PostgresServer) -> None:
    password = sql.Literal(server.passwords[BACKUP_USER])
    with closing(server.connect()) as superuser:
        superuser.execute(sql.SQL("ALTER ROLE backup_user PASSWORD {}").format(password))


@pytest.fixture
def server(make_cluster: MakeCluster) -> PostgresServer:
    """It has tables and a database that strangers may not enter, and none of our roles."""
    made = make_cluster()
    administer(
        made,
        "DROP OWNED BY backup_user",
        "DROP ROLE backup_user",
        'CREATE DATABASE "closed one"',
        'REVOKE CONNECT ON DATABASE "closed one" FROM PUBLIC',
        "CREATE TABLE secret AS SELECT 1 AS n",
    )
    return made


def failed(checks: list[Check]) -> dict[str, str]:
    return {one.name: one.detail for one in checks if one.outcome is not CheckOutcome.PASSED}


def site_of(server: PostgresServer, keys: KeySet, folder: Path, **cluster: object) -> Site:
    site = make_site(folder / "site", keys, server, database="postgres")
    return site.changed(cluster={"dsn": server.dsn("postgres", BACKUP_USER), **cluster})


def test_the_roles_suffice_for_backup_verification_and_wal_and_for_nothing_else(
    server: PostgresServer, key_set: KeySet, place: Path
) -> None:
    run_roles(server)
    run_roles(server)
    set_password(server)
    site = site_of(server, key_set, place)
    assert failed(check(site.services(), None)) == {}
    site.backup()
    assert verify(site.services(), site.newest()).passed
    with receiving(with_wal(site)):
        slots = "SELECT 1 FROM pg_replication_slots WHERE active"
        wait_until(lambda: server.query(slots), 20, "WAL is received")
    with closing(psycopg.connect(server.dsn("postgres", BACKUP_USER), autocommit=True)) as user:
        for attempt in (
            "SELECT n FROM secret",
            "CREATE DATABASE own",
            "CREATE ROLE other",
            "CREATE TABLE public.own (n int)",
            "ALTER SYSTEM SET archive_mode = off",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('postgresql.conf')",
        ):
            with pytest.raises(DENIED):
                user.execute(attempt)
    [[mighty]] = server.query(
        "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'backup\\_%'"
        " AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls)"
    )
    assert mighty == 0


def test_what_check_prints_is_all_that_has_to_be_run(
    make_cluster: MakeCluster, postgres_major: int, key_set: KeySet, place: Path
) -> None:
    minimal = {"wal_level": "minimal", "max_wal_senders": "0"}
    summaries = {"summarize_wal": "off"} if postgres_major >= 17 else {}
    server = make_cluster(ClusterOptions(settings=minimal | summaries))
    administer(
        server,
        "ALTER ROLE backup_user NOREPLICATION",
        'CREATE DATABASE "closed one"',
        'REVOKE CONNECT ON DATABASE "closed one" FROM PUBLIC',
    )
    site = site_of(server, key_set, place, schedule={"incremental": False})
    found = next(
        detail
        for name, detail in failed(check(site.services(), None)).items()
        if name.endswith("grants and settings")
    )
    statements = re.findall(r"((?:ALTER|GRANT)[^;]*;) /\* (at once|after a \w+) \*/", found)
    assert {effect for _, effect in statements} == {"at once", "after a restart"}
    assert any("wal_level" in statement for statement, _ in statements)
    assert any('"closed one"' in statement for statement, _ in statements)
    with closing(server.connect()) as superuser:
        for statement, _ in statements:
            superuser.execute(statement.encode())
    server.stop()
    server.start()
    assert failed(check(site.services(), None)) == {}
