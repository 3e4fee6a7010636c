"""What is printed for a login that was refused: exact, quoted, and nothing when in doubt."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.postgres.prerequisites import Lack
from worker.postgres.refused_login import lacks_of_refusal, quoted

DSN = "host=db.example.net user=backup_user dbname=orders"
NO_ENTRY = "no pg_hba.conf entry for"


def only(message: str, dsn: str = DSN) -> Lack:
    [lack] = lacks_of_refusal(message, dsn)
    return lack


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            f'{NO_ENTRY} host "10.1.2.3", user "backup_user", database "orders", SSL encryption',
            "hostssl  all  backup_user  10.1.2.3/32  scram-sha-256",
        ),
        (
            (
                f'{NO_ENTRY} replication connection from host "10.1.2.3", SSL encryption; '
                f'{NO_ENTRY} replication connection from host "10.1.2.3", no encryption'
            ),
            "hostssl  replication  backup_user  10.1.2.3/32  scram-sha-256",
        ),
        (
            f'{NO_ENTRY} host "10.1.2.3", user "x", database "orders", no encryption',
            "hostssl  all  backup_user  10.1.2.3/32  scram-sha-256",
        ),
        (
            f'{NO_ENTRY} host "127.0.0.1", user "x", database "orders", no encryption',
            "host  all  backup_user  127.0.0.1/32  scram-sha-256",
        ),
        (
            f'{NO_ENTRY} host "fd00::7", user "x", database "orders", SSL encryption',
            "hostssl  all  backup_user  fd00::7/128  scram-sha-256",
        ),
        (
            f'{NO_ENTRY} host "[local]", user "x", database "orders", no encryption',
            "local  all  backup_user  scram-sha-256",
        ),
        (
            'pg_hba.conf rejects replication connection for host "10.1.2.3", SSL encryption',
            "hostssl  replication  backup_user  10.1.2.3/32  scram-sha-256",
        ),
    ],
)
def test_a_missing_rule_becomes_the_line_to_write(message: str, line: str) -> None:
    lack = only(f'connection to server at "db" failed: {message}')
    assert (lack.statement, lack.place, lack.effect) == (line, "pg_hba.conf", "after a reload")
    assert ("above" in lack.fact) == ("rejects" in message)


@pytest.mark.parametrize("host", ["db.example.net", "10.0.0.1/0  trust\nhost all all", "", "all"])
def test_what_is_no_address_never_becomes_a_line(host: str) -> None:
    assert lacks_of_refusal(f'{NO_ENTRY} host "{host}", user "x", SSL encryption', DSN) == ()


@pytest.mark.parametrize(
    ("message", "statement", "effect"),
    [
        (
            'permission denied for database "orders"; DETAIL: User does not have CONNECT privilege',
            'GRANT CONNECT ON DATABASE "orders" TO backup_user;',
            "at once",
        ),
        ('role "x" is not permitted to log in', "ALTER ROLE backup_user LOGIN;", "at once"),
        (
            'too many connections for role "x"',
            "ALTER ROLE backup_user CONNECTION LIMIT 10;",
            "at once",
        ),
        (
            "must be superuser or replication role to start walsender",
            "ALTER ROLE backup_user REPLICATION;",
            "at once",
        ),
        ("permission denied to start WAL sender", "ALTER ROLE backup_user REPLICATION;", "at once"),
        (
            "number of requested standby connections exceeds max_wal_senders (currently 7)",
            "ALTER SYSTEM SET max_wal_senders = 14;",
            "after a restart",
        ),
        (
            'number of requested standby connections exceeds "max_wal_senders" (currently 2)',
            "ALTER SYSTEM SET max_wal_senders = 10;",
            "after a restart",
        ),
    ],
)
def test_a_missing_right_becomes_the_statement_to_run(
    message: str, statement: str, effect: str
) -> None:
    lack = only(message)
    assert (lack.statement, lack.effect, lack.place) == (statement, effect, "sql")


@pytest.mark.parametrize(
    "message",
    [
        'password authentication failed for user "backup_user"',
        'permission denied for database "another"; DETAIL: User does not have CONNECT privilege',
        "FEHLER: kein pg_hba.conf-Eintrag",
        # wal_level may be minimal then, and half of the change keeps the server from starting
        'number of requested standby connections exceeds "max_wal_senders" (currently 0)',
    ],
)
def test_where_nothing_is_sure_nothing_is_said(message: str) -> None:
    assert lacks_of_refusal(message, DSN) == ()


def test_a_role_with_an_odd_name_is_quoted_in_both_languages() -> None:
    dsn = """host=db dbname=orders user='back"up; --'"""
    assert only("permission denied to start WAL sender", dsn).statement == (
        'ALTER ROLE "back""up; --" REPLICATION;'
    )
    rule = only(f'{NO_ENTRY} host "10.1.2.3", user "x", SSL encryption', dsn).statement
    assert rule == 'hostssl  all  "back""up; --"  10.1.2.3/32  scram-sha-256'
    newline = "host=db user='a\nhost all all 0.0.0.0/0 trust'"
    assert lacks_of_refusal(f'{NO_ENTRY} host "10.1.2.3", user "x"', newline) == ()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_quoted_name_is_one_word_and_reads_back(name: str) -> None:
    written = quoted(name)
    if written == name:
        assert re.fullmatch(r"[a-z0-9_]+", name)
        return
    assert written[0] == written[-1] == '"'
    assert re.fullmatch(r'(?:[^"]|"")+', written[1:-1])
    assert written[1:-1].replace('""', '"') == name


@pytest.mark.parametrize("word", ["all", "replication", "user", "current_user", "session_user"])
def test_words_of_the_languages_are_quoted(word: str) -> None:
    assert quoted(word) == f'"{word}"'
