"""What is printed below the checks: one script for each server, in an order that works."""

import json

import pytest

from shared.domain.drill import CheckOutcome
from worker.commands.check_result import CheckResult
from worker.commands.printed_check import checks, lacks_by_server, script
from worker.postgres.prerequisites import Lack

SELECT = Lack("may not read", "GRANT SELECT ON a TO b;", "at once", database='Od"d')
RIGHT = Lack("may not replicate", "ALTER ROLE b REPLICATION;", "at once")
RELOAD = Lack("off", "ALTER SYSTEM SET a = on;", "after a reload")
RESTART = Lack("low", "ALTER SYSTEM SET c = 10;", "after a restart")
ADVISED = Lack("nothing\nlimits it", "ALTER SYSTEM SET d = '1GB';", "after a reload", needed=False)
RULE = Lack("not let in", "hostssl  all  b  ::1/128  scram", "after a reload", "pg_hba.conf")
LINE = Lack("minimal", "wal_level = 'replica'", "after a restart", "postgresql.conf")


def result(*lacks: Lack, server: str = "orders") -> CheckResult:
    return CheckResult("orders: server", CheckOutcome.FAILED, "[red]it", 0.5, server, lacks)


def test_the_script_reloads_once_and_enters_a_database_last() -> None:
    assert list(script([SELECT, RELOAD, RIGHT, ADVISED, RESTART, RULE])) == [
        "ALTER SYSTEM SET a = on;",
        "ALTER ROLE b REPLICATION;",
        "ALTER SYSTEM SET d = '1GB';  -- advised: nothing limits it",
        "ALTER SYSTEM SET c = 10;  -- then restart the server",
        "SELECT pg_reload_conf();",
        '\\connect "Od""d"',
        "GRANT SELECT ON a TO b;",
    ]
    assert list(script([RIGHT, RULE])) == [RIGHT.statement]


def test_what_two_checks_met_is_told_once_for_each_server() -> None:
    found = lacks_by_server(
        [result(RIGHT, SELECT), result(RIGHT), result(RIGHT, server="the standby of orders")]
    )
    assert found == {"orders": [RIGHT, SELECT], "the standby of orders": [RIGHT]}
    assert lacks_by_server([result()]) == {}


def test_people_see_where_each_part_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    checks([result(RIGHT, RULE, LINE)], as_json=False)
    shown = capsys.readouterr().out
    assert "[red]it\n" in shown
    assert shown.endswith(
        "\nTo run on orders, in psql, as a superuser:\n\nALTER ROLE b REPLICATION;\n"
        "\nTo write into postgresql.conf of orders; then restart it:\n\nwal_level = 'replica'\n"
        "\nTo write into pg_hba.conf of orders; then reload it:\n\n"
        "hostssl  all  b  ::1/128  scram\n"
    )


def test_programs_get_the_same_beside_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    checks([result(SELECT), result(server="")], as_json=True)
    first, second = json.loads(capsys.readouterr().out)["checks"]
    assert (first["name"], first["outcome"], first["server"]) == (
        "orders: server",
        "failed",
        "orders",
    )
    assert first["lacks"] == [
        {
            "fact": "may not read",
            "statement": "GRANT SELECT ON a TO b;",
            "effect": "at once",
            "place": "sql",
            "database": 'Od"d',
            "needed": True,
        }
    ]
    assert (second["server"], second["lacks"]) == (None, [])
