"""Copies made with pg_basebackup, looked into as a drill would: good and spoilt ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import postgres_programs
from shared.domain.drill import (
    CheckOutcome,
    TableVerdictKind,
    tables_check,
)
from tests.harness.restore_lab import LIMIT_S, RestoreLab, flip_byte, restore_lab
from worker.postgres.instance import (
    Instance,
    Opening,
    connect_instance,
    stop_cleanly,
    wait_until_open,
)
from worker.postgres.programs import (
    read_control_data,
)
from worker.postgres.restored_checks import (
    check_collations,
    check_page_checksums,
    check_relations,
    recovery_end,
)
from worker.postgres.validation_sql import Limits, check_validation_sql, split_statements

pytestmark = [pytest.mark.integration, pytest.mark.postgres]

LIMITS = Limits(statement_s=10, wall_s=20)


@pytest.fixture(
    scope="module", params=postgres_programs.available_majors(), ids="postgres{}".format
)
def lab(request: pytest.FixtureRequest) -> Iterator[RestoreLab]:
    with restore_lab(request.param) as ready:
        yield ready


@pytest.fixture(scope="module")
def shop(lab: RestoreLab) -> Iterator[Instance]:
    with lab.opened() as instance:
        yield instance


def test_a_good_copy_passes_everything(lab: RestoreLab) -> None:
    scratch = lab.copy()
    control = read_control_data(lab.programs, scratch.data, account=lab.account)
    with lab.instance(scratch) as instance:
        opening = wait_until_open(instance, "postgres", timeout=LIMIT_S)
        verdicts = lab.verdicts(instance)
        checks = [
            tables_check(list(verdicts.values()), 0.0),
            check_collations(instance, "postgres"),
            check_relations(instance, "postgres", timeout=LIMIT_S),
            check_validation_sql(
                instance, "postgres", "SELECT count(*) = 1000 FROM quiet;", LIMITS, role="asker"
            ),
        ]
        assert stop_cleanly(instance)
        checks.append(check_page_checksums(instance, control, timeout=LIMIT_S))

    assert [check.outcome for check in checks] == [CheckOutcome.PASSED] * 5, checks
    assert isinstance(opening, Opening)
    assert 0 < opening.consistent_s <= opening.recovered_s <= opening.first_query_s < LIMIT_S
    assert verdicts["quiet"].kind is TableVerdictKind.EQUAL
    assert verdicts["unlogged"].kind is TableVerdictKind.UNLOGGED
    assert verdicts["busy"].kind is TableVerdictKind.WITHIN_BOUNDS
    assert verdicts["busy"].rows == (1000, 1000, 1000)
    assert verdicts["busy"].settled == (1000, 985, 990)
    assert control.max_connections == 137


def test_the_copy_ends_where_the_backup_does_on_a_timeline_of_its_own(lab: RestoreLab) -> None:
    with lab.opened() as instance, connect_instance(instance, "postgres") as sql:
        timeline = sql.execute("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)").fetchone()
        end = recovery_end(sql)

    assert timeline == ("00000002",)
    assert lab.start[0].lsn_after < end <= lab.end[0].lsn_before


def test_rows_deleted_from_the_copy_are_found_lost(lab: RestoreLab) -> None:
    with lab.opened() as instance:
        with connect_instance(instance, "postgres") as sql:
            sql.execute("DELETE FROM public.quiet WHERE id = 500")
            sql.execute("DELETE FROM public.busy WHERE id BETWEEN 11 AND 17")
        verdicts = lab.verdicts(instance)

    assert verdicts["quiet"].kind is TableVerdictKind.LOST
    assert verdicts["quiet"].sentence.startswith("1 rows lost")
    assert verdicts["busy"].sentence.startswith("2 rows lost")


def test_rows_written_long_after_the_end_are_phantoms(lab: RestoreLab) -> None:
    with lab.opened() as instance:
        with connect_instance(instance, "postgres") as sql:
            for _ in range(20):
                sql.execute("SELECT pg_current_xact_id()")
            sql.execute("INSERT INTO public.quiet VALUES (0)")
        verdict = lab.verdicts(instance)["quiet"]

    assert verdict.kind is TableVerdictKind.PHANTOM


def test_a_dropped_table_is_missing_and_a_renamed_one_undecided(lab: RestoreLab) -> None:
    with lab.opened() as instance:
        with connect_instance(instance, "postgres") as sql:
            sql.execute("DROP TABLE public.quiet")
            sql.execute("ALTER TABLE public.busy RENAME TO bee")
        verdicts = lab.verdicts(instance)

    assert verdicts["quiet"].kind is TableVerdictKind.MISSING
    assert verdicts["busy"].kind is TableVerdictKind.UNDECIDED


def test_libraries_set_for_databases_and_roles_are_not_loaded(lab: RestoreLab) -> None:
    with lab.opened() as instance:
        with connect_instance(instance, "postgres") as sql:
            sql.execute("ALTER DATABASE postgres SET session_preload_libraries = 'nonexistent'")
            sql.execute("ALTER ROLE postgres SET local_preload_libraries = 'nonexistent'")
            sql.execute("ALTER ROLE ALL SET local_preload_libraries = 'nonexistent'")
        with connect_instance(instance, "postgres") as sql:
            shown = sql.execute("SHOW session_preload_libraries").fetchone()
        asked = check_validation_sql(instance, "postgres", "SELECT true", LIMITS, role="asker")
        amcheck = check_relations(instance, "postgres", timeout=LIMIT_S)

    assert shown == ("",)
    assert asked.outcome is CheckOutcome.PASSED
    assert amcheck.outcome is CheckOutcome.PASSED


def test_a_damaged_page_fails_amcheck_and_checksums(lab: RestoreLab) -> None:
    scratch = lab.copy()
    control = read_control_data(lab.programs, scratch.data, account=lab.account)
    with lab.instance(scratch) as instance:
        wait_until_open(instance, "postgres", timeout=LIMIT_S)
        with connect_instance(instance, "postgres") as sql:
            path = sql.execute("SELECT pg_relation_filepath('public.quiet')").fetchone()
        assert stop_cleanly(instance)
    flip_byte(scratch.data / (path or ("",))[0], 8192 + 5000)

    with lab.instance(scratch) as instance:
        wait_until_open(instance, "postgres", timeout=LIMIT_S)
        table = lab.verdicts(instance)["quiet"]
        amcheck = check_relations(instance, "postgres", timeout=LIMIT_S)
        assert stop_cleanly(instance)
        checksums = check_page_checksums(instance, control, timeout=LIMIT_S)

    assert table.kind is TableVerdictKind.UNREADABLE
    assert amcheck.outcome is CheckOutcome.FAILED
    assert checksums.outcome is CheckOutcome.FAILED
    assert checksums.detail.startswith("1 pages")
    assert "quiet" in (scratch.directory / "pg_amcheck.log").read_text()
    assert "quiet" not in amcheck.detail


def test_pages_are_not_judged_while_the_server_runs(lab: RestoreLab) -> None:
    with lab.opened() as instance:
        control = read_control_data(lab.programs, instance.scratch.data, account=lab.account)
        check = check_page_checksums(instance, control, timeout=LIMIT_S)

    assert check.outcome is CheckOutcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT true; SELECT count(*) > 5000 FROM quiet", "statement 2 of 2: row 1 is false"),
        ("SELECT id < 1000 FROM quiet ORDER BY id", "row 1000 is false"),
        ("SELECT * FROM nowhere", "SQLSTATE 42P01"),
        ("INSERT INTO quiet VALUES (1)", "SQLSTATE 25006"),
        ("SET TRANSACTION READ WRITE; INSERT INTO quiet VALUES (1)", "SQLSTATE 25006"),
        ("CREATE TABLE public.mine (id int)", "SQLSTATE 25006"),
        ("DO $$ BEGIN COMMIT; CREATE TABLE public.mine (id int); END $$", "SQLSTATE 2D000"),
        ("COPY quiet TO PROGRAM 'touch /tmp/pgkeep-planted'", "SQLSTATE 42501"),
        ("COPY quiet TO STDOUT", "COPY"),
        ("SELECT pg_read_file('/etc/passwd')", "SQLSTATE 42501"),
        ("SELECT lo_import('/etc/passwd')", "SQLSTATE"),
        ("ALTER ROLE CURRENT_USER SUPERUSER", "SQLSTATE"),
        ("SELECT pg_sleep(60)", "SQLSTATE 57014"),
        ("SET statement_timeout = 0", ""),
    ],
)
def test_validation_sql_may_ask_and_nothing_else(
    lab: RestoreLab, shop: Instance, text: str, words: str
) -> None:
    role = f"asker_{next(lab.numbers)}"
    limits = Limits(statement_s=1, wall_s=10)

    check = check_validation_sql(shop, "postgres", text, limits, role=role)

    assert check.outcome is (CheckOutcome.FAILED if words else CheckOutcome.PASSED), check
    assert words in check.detail
    assert not Path("/tmp/pgkeep-planted").exists()


def test_sql_that_refuses_to_end_is_killed_with_the_server(
    lab: RestoreLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.postgres.validation_sql.KILL_GRACE_S", 1)
    stubborn = """
        SET statement_timeout = 0; -- has no effect on the next session
        DO $$ BEGIN LOOP
            BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
        END LOOP; END $$"""
    with lab.opened() as instance:
        check = check_validation_sql(
            instance, "postgres", stubborn, Limits(statement_s=1, wall_s=2), role="stubborn"
        )
        running = instance.running

    assert check.outcome is CheckOutcome.FAILED
    assert check.detail.startswith("statement 2 of 2")
    assert check.seconds < 20
    assert not running


def test_a_file_without_statements_is_skipped(shop: Instance) -> None:
    check = check_validation_sql(shop, "postgres", "-- nothing;\n;;", LIMITS, role="nobody_asks")

    assert check.outcome is CheckOutcome.SKIPPED


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';'; SELECT 'it''s;'", ["SELECT ';'", "SELECT 'it''s;'"]),
        (r"SELECT E'\';'; SELECT 2", [r"SELECT E'\';'", "SELECT 2"]),
        ('SELECT ";"";"', ['SELECT ";"";"']),
        ("DO $a$ ; $b$ ; $a$; SELECT 1", ["DO $a$ ; $b$ ; $a$", "SELECT 1"]),
        ("SELECT 1 /* ; /* ; */ ; */ + 1; -- ;\n", ["SELECT 1 /* ; /* ; */ ; */ + 1"]),
        ("SELECT a$1$ FROM t; SELECT 2", ["SELECT a$1$ FROM t", "SELECT 2"]),
        ("-- only; a comment", []),
        ("SELECT 'open; end", ["SELECT 'open; end"]),
    ],
)
def test_statements_are_split_where_postgresql_would(text: str, statements: list[str]) -> None:
    assert split_statements(text) == statements
