"""infra/sql/*.sql on real servers: they suffice for what pgkeep does, and allow nothing else.

And `pgkeep check` on a server that has none of it: what it prints is what has to be run.
"""

import subprocess
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from local.postgres_initdb import BACKUP_USER, SUPERUSER, ClusterOptions
from local.postgres_server import PostgresServer
from shared.catalogue.migrate import migrate
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.drill import CheckOutcome
from shared.errors import ReplicationDenied
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.wal_receiver import receiving, with_wal
from tests.harness.worker_services import Site, make_site
from worker.commands.check import check
from worker.commands.check_result import CheckResult
from worker.commands.maintenance import MaintenanceRequest, maintain
from worker.commands.printed_check import lacks_by_server, script
from worker.commands.verify import verify
from worker.keys.generate import KeySet
from worker.postgres.archiver_facts import archiver_facts
from worker.postgres.connection import connect, connect_sql
from worker.postgres.prerequisites import Lack, SlotWish, lacks
from worker.postgres.replication import show

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "infra" / "sql"
DENIED = psycopg.errors.InsufficientPrivilege
PASSWORD = "of this test"  # noqa: S105
TOO_MANY = 100


def psql(server: PostgresServer, *arguments: str, text: str = "", dsn: str = "") -> str:
    """As an operator runs it; what it said."""
    done = subprocess.run(
        [server.programs / "psql", "--no-psqlrc", "--quiet", *arguments, dsn or server.dsn()],
        check=False,
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_file(server: PostgresServer, name: str, *, dsn: str = "", **options: str) -> str:
    """As its head says."""
    settings = [word for item in options.items() for word in ("--set", "=".join(item))]
    return psql(server, *settings, "--file", str(FOLDER / name), dsn=dsn)


def administer(server: PostgresServer, *statements: LiteralString) -> None:
    with closing(server.connect()) as superuser:
        for statement in statements:
            superuser.execute(statement)


def set_password(server: PostgresServer, role: str, password: str) -> str:
    """A connection string for the role."""
    query = sql.SQL("ALTER ROLE {} PASSWORD {}")
    with closing(server.connect()) as superuser:
        superuser.execute(query.format(sql.Identifier(role), sql.Literal(password)))
    return psycopg.conninfo.make_conninfo(server.dsn(), user=role, password=password)


def roles_of(server: PostgresServer) -> list[tuple[object, ...]]:
    """All that roles.sql may change."""
    return server.query("""
        SELECT 1, role::text, setconfig::text FROM pg_roles AS role
          LEFT JOIN pg_db_role_setting ON setrole = role.oid
        UNION ALL
        SELECT 2, roleid::regrole || ' to ' || member::regrole, '' FROM pg_auth_members
        UNION ALL
        SELECT 3, datname, datacl::text FROM pg_database
        ORDER BY 1, 2""")


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
        'CREATE ROLE "the owner"',
        "CREATE TABLE secret AS SELECT 1 AS n",
        "CREATE INDEX broken ON secret (n)",
        'ALTER TABLE secret OWNER TO "the owner"',
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass",
    )
    return made


def site_of(server: PostgresServer, keys: KeySet, folder: Path, **cluster: object) -> Site:
    site = make_site(folder / "site", keys, server, database="postgres")
    return site.changed(cluster={"dsn": server.dsn("postgres", BACKUP_USER), **cluster})


def failed(checks: Iterable[CheckResult]) -> dict[str, str]:
    return {one.name: one.detail for one in checks if one.outcome is not CheckOutcome.PASSED}


def denied(dsn: str, *attempts: LiteralString) -> None:
    with closing(psycopg.connect(dsn, autocommit=True)) as user:
        user.execute("SET default_transaction_read_only = off")  # it is a guard, not a wall
        for attempt in attempts:
            with pytest.raises(DENIED):
                user.execute(attempt)


FORBIDDEN: tuple[LiteralString, ...] = (
    "SELECT n FROM secret",
    "INSERT INTO secret VALUES (2)",
    "CREATE DATABASE own",
    "CREATE ROLE other",
    "CREATE TABLE public.own (n int)",
    "ALTER ROLE postgres PASSWORD 'x'",
    "ALTER SYSTEM SET archive_mode = off",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT rolpassword FROM pg_authid",
    'SET ROLE "the owner"',
)


@pytest.mark.postgres
def test_the_roles_suffice_for_backup_verification_wal_and_upkeep_and_for_nothing_else(
    server: PostgresServer, key_set: KeySet, place: Path
) -> None:
    options = {"maintainer": "index keeper", "table_owners": " the owner,"}
    assert run_file(server, "roles.sql", **options) == ""
    administer(server, "ALTER ROLE backup_monitor SUPERUSER CREATEDB REPLICATION")
    before = roles_of(server)
    run_file(server, "roles.sql", **options)
    made = roles_of(server)
    run_file(server, "roles.sql", **options)
    assert made == roles_of(server) != before

    user = set_password(server, BACKUP_USER, server.passwords[BACKUP_USER])
    monitor = set_password(server, "backup_monitor", PASSWORD)
    keeper = set_password(server, "index keeper", PASSWORD)
    site = site_of(server, key_set, place, maintenance={"dsn": keeper})
    assert failed(check(site.services(), None)) == {}
    site.backup()
    assert verify(site.services(), site.newest()).passed
    with receiving(with_wal(site)):
        slots = "SELECT 1 FROM pg_replication_slots WHERE active"
        wait_until(lambda: server.query(slots), 20, "WAL is received")
        with (
            closing(psycopg.connect(user, autocommit=True)) as session,
            pytest.raises(psycopg.errors.ObjectInUse),
        ):
            session.execute("SELECT pg_drop_replication_slot('pgkeep')")
    services = site.services()
    until = services.clocks.now() + timedelta(hours=1)
    upkeep = maintain(services, site.cluster, MaintenanceRequest(until=until))
    assert [str(one.task.subject) for one in upkeep.done] == ["postgres.public.broken"]
    assert upkeep.failed == []

    denied(user, *FORBIDDEN)
    denied(monitor, *FORBIDDEN, "SELECT pg_drop_replication_slot('pgkeep')")
    facts = archiver_facts(lambda name: connect_sql(f"{monitor} dbname={name}"), "postgres")
    assert facts.waiting_files == 0, "an agent that only pushes can report as backup_monitor"
    with pytest.raises(ReplicationDenied):
        connect(monitor, replication=True)
    with closing(psycopg.connect(keeper)) as session, pytest.raises(DENIED):
        session.execute("SET ROLE postgres")


def test_the_guards_of_a_role_hold_for_sql_and_leave_streams_alone(
    server: PostgresServer,
) -> None:
    run_file(server, "roles.sql", read_all_data="yes")
    user = set_password(server, BACKUP_USER, PASSWORD)
    stream = connect(user, replication=True)
    assert show(stream, "statement_timeout") == show(stream, "lock_timeout") == "0"
    stream.finish()
    with closing(psycopg.connect(user, autocommit=True)) as session:
        assert session.execute("SHOW statement_timeout").fetchall() == [("15min",)]
        assert session.execute("SELECT n FROM secret").fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            session.execute("CREATE TEMP TABLE t (n int)")
        run_file(server, "roles.sql", read_all_data="no")
        with pytest.raises(DENIED):
            session.execute("SELECT n FROM secret")


@pytest.mark.postgres
def test_from_16_on_an_administrator_who_is_no_superuser_can_run_it(
    server: PostgresServer, postgres_major: int
) -> None:
    administer(
        server,
        f"CREATE ROLE admin LOGIN CREATEROLE REPLICATION PASSWORD '{PASSWORD}'",
        "GRANT pg_monitor TO admin WITH ADMIN OPTION",
        'ALTER DATABASE "closed one" OWNER TO admin',
    )
    admin = psycopg.conninfo.make_conninfo(server.dsn(), user="admin", password=PASSWORD)
    if postgres_major < 16:
        with pytest.raises(AssertionError, match="superuser"):
            run_file(server, "roles.sql", dsn=admin)
        assert server.query("SELECT FROM pg_roles WHERE rolname = 'backup_monitor'") == []
        return
    run_file(server, "roles.sql", dsn=admin)
    run_file(server, "roles.sql", dsn=admin)
    user = set_password(server, BACKUP_USER, PASSWORD)
    connect(user, replication=True).finish()
    with closing(psycopg.connect(f"{user} dbname='closed one'")) as session:
        [row] = session.execute("SELECT pg_has_role('pg_monitor', 'USAGE')").fetchall()
        assert row == (True,)


def write_rules(server: PostgresServer, rules: Iterable[str]) -> None:
    """The superuser's, and those given."""
    first = f"host all {SUPERUSER} 127.0.0.1/32 scram-sha-256"
    (server.data / "pg_hba.conf").write_text("\n".join([first, *rules]) + "\n")
    reload(server)


def reload(server: PostgresServer) -> None:
    """And wait until a new connection sees it."""
    loaded = server.query("SELECT pg_conf_load_time()")
    server.reload()
    wait_until(lambda: server.query("SELECT pg_conf_load_time()") != loaded, 20, "it is reloaded")


def follow(server: PostgresServer, lacks: list[Lack], rules: list[str]) -> None:
    """Run and write exactly what is printed, and then do what it says has to follow."""
    psql(server, "--set", "ON_ERROR_STOP=1", text="\n".join(script(lacks)))
    rules += [lack.statement for lack in lacks if lack.place == "pg_hba.conf"]
    write_rules(server, rules)
    if any(lack.effect == "after a restart" for lack in lacks):
        server.stop()
        server.start()


ODD_DATABASE = 'Odd "one"; --'
ODD_TABLES = ['"Odd ""one""; --"."S x"."T;y"', "postgres.public.parted", "postgres.public.ruled"]


def without_anything(make: MakeCluster, major: int) -> PostgresServer:
    """Everything that check knows of is missing."""
    settings = {"wal_level": "minimal", "max_wal_senders": "0", "max_replication_slots": "0"}
    settings |= {"full_page_writes": "off"}
    settings |= {"summarize_wal": "off"} if major >= 17 else {}
    server = make(ClusterOptions(settings=settings))
    administer(
        server,
        "ALTER ROLE backup_user NOREPLICATION NOLOGIN CONNECTION LIMIT 0",
        'CREATE DATABASE "Odd ""one""; --"',
        'REVOKE CONNECT ON DATABASE "Odd ""one""; --", postgres FROM PUBLIC',
        "CREATE TABLE parted (n int) PARTITION BY RANGE (n)",
        'CREATE TABLE "part 1" PARTITION OF parted DEFAULT',
        "CREATE TABLE ruled (n int)",
        "ALTER TABLE ruled ENABLE ROW LEVEL SECURITY",
    )
    with closing(server.connect(ODD_DATABASE)) as superuser:
        superuser.execute('CREATE SCHEMA "S x"')
        superuser.execute('CREATE TABLE "S x"."T;y" (n int)')
    return server


@pytest.mark.postgres
def test_what_check_prints_is_all_that_has_to_be_run(
    make_cluster: MakeCluster, postgres_major: int, key_set: KeySet, place: Path
) -> None:
    server = without_anything(make_cluster, postgres_major)
    rules = ["host all backup_user 127.0.0.1/32 reject"]
    write_rules(server, rules)
    wal = {"create_slot": False, "slot": "of_ours"}
    site = site_of(server, key_set, place, tables=ODD_TABLES, wal=wal)
    rules.clear()  # what rejects goes; nothing else lets in
    seen: list[Lack] = []
    while found := lacks_by_server(results := check(site.services(), None)):
        assert found.keys() == {site.cluster.name}
        seen += found[site.cluster.name]
        assert len(seen) < TOO_MANY, seen[-3:]
        follow(server, found[site.cluster.name], rules)
    assert failed(results) == {}
    assert {lack.place for lack in seen} == {"sql", "pg_hba.conf"}
    assert rules == [
        "host  all  backup_user  127.0.0.1/32  scram-sha-256",
        "host  replication  backup_user  127.0.0.1/32  scram-sha-256",
    ]
    ours = server.query("SELECT slot_name FROM pg_replication_slots")
    assert ours == [("of_ours",)]


def test_the_command_prints_what_psql_takes_as_it_is(
    server: PostgresServer, key_set: KeySet, place: Path
) -> None:
    run_file(server, "roles.sql")
    set_password(server, BACKUP_USER, server.passwords[BACKUP_USER])
    administer(server, "REVOKE pg_monitor FROM backup_user")
    site = site_of(server, key_set, place, tables=["public.secret"])
    said = site.pgkeep("check")
    assert said.returncode == 3, said.stderr
    assert '\\connect "postgres"\nGRANT SELECT ON public.secret TO backup_user;\n' in said.stdout
    assert "\nGRANT pg_monitor TO backup_user;  -- advised: " in said.stdout
    statements = said.stdout.partition("as a superuser:")[2]
    psql(server, "--set", "ON_ERROR_STOP=1", text=statements.partition("\nTo write")[0])
    administer(server, "ALTER SYSTEM SET max_slot_wal_keep_size = -1")
    reload(server)
    answer = site.pgkeep("check", "--json")
    assert answer.returncode == 0, answer.stdout
    assert '"statement": "ALTER SYSTEM SET max_slot_wal_keep_size = \'64GB\';"' in answer.stdout


def test_where_alter_system_is_not_allowed_lines_for_the_file_are_given(
    make_cluster: MakeCluster,
) -> None:
    settings = {"allow_alter_system": "off", "max_replication_slots": "1", "archive_mode": "on"}
    server = make_cluster(ClusterOptions(settings=settings))
    administer(
        server,
        "GRANT pg_monitor TO backup_user",
        "SELECT pg_create_physical_replication_slot('of_somebody', true)",
    )
    dsn = server.dsn("postgres", BACKUP_USER)
    wish = SlotWish("pgkeep", may_create=True)
    found = lacks(lambda name: connect_sql(f"{dsn} dbname={name}"), "postgres", wish)
    assert {(lack.place, lack.needed) for lack in found} == {("postgresql.conf", False)}
    server.configure({"archive_command": "true"})
    with (server.data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.writelines(f"{lack.statement}\n" for lack in found)
    server.stop()
    server.start()
    wanted = ("max_replication_slots", "max_slot_wal_keep_size", "archive_timeout")
    assert [server.query(f"SHOW {name}") for name in wanted] == [
        [("10",)],
        [("64GB",)],
        [("5min",)],
    ]
    assert lacks(lambda name: connect_sql(f"{dsn} dbname={name}"), "postgres", wish) == []


@pytest.mark.postgres
def test_the_settings_file_leaves_nothing_to_say(
    make_cluster: MakeCluster, postgres_major: int, key_set: KeySet, place: Path
) -> None:
    server = without_anything(make_cluster, postgres_major)
    administer(server, "ALTER SYSTEM SET archive_mode = on")
    administer(server, "ALTER SYSTEM SET wal_level = minimal")
    told = run_file(server, "settings.sql", slot_limit="2GB")
    assert "wal_level" in told
    assert "max_wal_senders" in told
    server.stop()
    server.start()
    assert "(0 rows)" in run_file(
        server, "settings.sql", slot_limit="3GB"
    )  # archive_mode is on now
    before = (server.data / "postgresql.auto.conf").read_text()
    assert "(0 rows)" in run_file(server, "settings.sql", slot_limit="3GB")
    assert before == (server.data / "postgresql.auto.conf").read_text()
    assert "archive_timeout = '300s'" in before
    run_file(server, "roles.sql", read_all_data="yes")
    administer(server, "ALTER ROLE backup_user CONNECTION LIMIT 10")
    results = check(site_of(server, key_set, place).services(), None)
    assert failed(results) == {}
    assert lacks_by_server(results) == {}


@pytest.mark.parametrize("server_is", ["plain", "flexible"])
def test_the_catalogue_file_makes_a_login_that_can_migrate_and_no_more(
    source_cluster: PostgresServer, server_is: str
) -> None:
    name, database = f"id-control {server_is}", f"Catalogue {server_is}"
    if (
        server_is == "flexible"
    ):  # what Flexible Server has: it makes a role, whose passwords are tokens
        administer(
            source_cluster,
            "CREATE FUNCTION pgaadauth_create_principal(text, bool, bool) RETURNS text"
            " LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('CREATE ROLE %I LOGIN', $1);"
            " RETURN 'Created role for ' || $1; END $$",
        )
    try:
        for _ in range(2):
            options = {"identity": name, "database": database}
            assert run_file(source_cluster, "catalogue.sql", **options) == ""
        login = set_password(source_cluster, name, PASSWORD)
        dsn = psycopg.conninfo.make_conninfo(login, dbname=database)
        assert migrate(dsn, datetime(2026, 11, 22, tzinfo=UTC))
        assert PostgresCatalogue(dsn).findings() == []
        denied(dsn, "CREATE SCHEMA own", "CREATE DATABASE own", "CREATE ROLE own")
        with closing(psycopg.connect(login, autocommit=True)) as session:
            drop = sql.SQL("DROP DATABASE {}").format(sql.Identifier(database))
            with pytest.raises(DENIED):
                session.execute(drop)
        stranger = psycopg.conninfo.make_conninfo(
            source_cluster.dsn(user=BACKUP_USER), dbname=database
        )
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(stranger)
    finally:
        with closing(source_cluster.connect()) as superuser:
            superuser.execute("DROP FUNCTION IF EXISTS pgaadauth_create_principal")
            forced = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database))
            superuser.execute(forced)
            superuser.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
