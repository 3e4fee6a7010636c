"""The operator's own questions to a restored cluster: a file of SQL statements that must hold.

Rule: every statement must run without error, and no row that it returns may have `false` (of type
boolean) as its first column. `SELECT count(*) > 1000 FROM orders` is a check; `SELECT now()` only
has to run. They run one by one, each in a READ ONLY transaction, as a new role that may read
everything (pg_read_all_data) and do nothing else: DDL, writes and COPY ... PROGRAM fail.
psql is not used: its `\\!` would run programs on this host.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from shared.domain.drill import Check, CheckOutcome
from worker.postgres.instance import Instance, connect_instance, stop_at_once
from worker.postgres.table_facts import mapped_errors

CHECK_NAME: Final = "validation_sql"
LOCK_TIMEOUT_S: Final = 5
KILL_GRACE_S: Final = 5  # after the wall limit; a statement that ignores cancelling is then killed
_SHOWN: Final = 200  # characters of PostgreSQL's message in a check's detail

# What may hide a semicolon; each alternative runs to its own end or to the end of the text.
_TOKEN: Final = re.compile(
    r"(?P<line_comment>--[^\n]*)"
    r"|(?P<comment>/\*)"
    r"|(?P<escape>\b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))"
    r"|(?P<text>'(?:[^']|'')*(?:'|\Z))"
    r'|(?P<name>"(?:[^"]|"")*(?:"|\Z))'
    r"|(?P<dollar>(?<![\w$])\$(?:[A-Za-z_]\w*)?\$)"
    r"|(?P<end>;)",
    re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for one statement, and for the whole file."""

    statement_s: float
    wall_s: float


def split_statements(text: str) -> list[str]:
    """The statements of a file, without their semicolons; comments alone are none.

    Knows strings, escape strings, quoted names, dollar quotes and nested comments. What is left
    open runs to the end: PostgreSQL will say so.
    """
    statements, start, position, meaningful = [], 0, 0, False
    while match := _TOKEN.search(text, position):
        meaningful = meaningful or bool(text[position : match.start()].strip())
        if match["end"]:
            if meaningful:
                statements.append(text[start : match.start()].strip())
            start, meaningful = match.end(), False
        elif not (match["line_comment"] or match["comment"]):
            meaningful = True
        position = _end_of(text, match)
    if meaningful or text[position:].strip():
        statements.append(text[start:].strip())
    return statements


def check_validation_sql(
    instance: Instance,
    database: str,
    text: str,
    limits: Limits,
    *,
    role: str,
    clock: Callable[[], float] = time.monotonic,
) -> Check:
    """Run the file; stops at the first statement that fails. `role` must be an unused name.

    When the wall limit passes and cancelling does not help, the server is killed: run this after
    every check that needs it alive. Details name statements by number, not by content.
    """
    began = clock()
    statements = split_statements(text)
    if not statements:
        return Check(CHECK_NAME, CheckOutcome.SKIPPED, "no statement", 0.0)
    with mapped_errors():
        _create_role(instance, database, role)
    problem = ""
    with _killed_after(instance, limits.wall_s + KILL_GRACE_S):
        for number, statement in enumerate(statements, 1):
            left = limits.wall_s - (clock() - began)
            problem = (
                _run(instance, database, role, statement, min(limits.statement_s, left))
                if left > 0
                else f"not run: the wall limit of {limits.wall_s:g} s has passed"
            )
            if problem:
                problem = f"statement {number} of {len(statements)}: {problem}"
                break
    seconds = round(clock() - began, 3)
    outcome = CheckOutcome.FAILED if problem else CheckOutcome.PASSED
    return Check(CHECK_NAME, outcome, problem or f"{len(statements)} statements hold", seconds)


def _create_role(instance: Instance, database: str, role: str) -> None:
    with connect_instance(instance, database) as connection:
        for statement in (
            "CREATE ROLE {role} LOGIN",
            "GRANT pg_read_all_data TO {role}",
            "GRANT CONNECT ON DATABASE {database} TO {role}",
            "GRANT SET ON PARAMETER session_preload_libraries TO {role}",  # for SESSION_OPTIONS
        ):
            names = {"role": sql.Identifier(role), "database": sql.Identifier(database)}
            connection.execute(sql.SQL(statement).format(**names))


def _run(instance: Instance, database: str, role: str, statement: str, timeout_s: float) -> str:
    """What is wrong with it, or nothing. Each has a session of its own: nothing carries over."""
    options = (
        "-c default_transaction_read_only=on",
        f"-c statement_timeout={max(1, round(timeout_s * 1000))}",
        f"-c lock_timeout={LOCK_TIMEOUT_S}s",
        "-c search_path=public",
    )
    try:
        with connect_instance(instance, database, user=role, options=options) as connection:
            connection.read_only = True
            with connection.transaction():
                return _judge(connection, statement)
    except psycopg.Error as error:
        return _message(error)


def _judge(connection: psycopg.Connection[TupleRow], statement: str) -> str:
    # stream() sends one statement by the extended protocol, so a second cannot hide in it, and
    # never holds more than a row. The text is the operator's, not put together from parts.
    rows = connection.cursor().stream(statement)
    try:
        for row_number, row in enumerate(rows, 1):
            if row and row[0] is False:
                return f"row {row_number} is false"
    except psycopg.ProgrammingError as error:
        if error.sqlstate or "produce a result" not in str(error):
            raise
    return ""


def _message(error: psycopg.Error) -> str:
    """PostgreSQL's words without the lines that quote data and statement."""
    words = error.diag.message_primary or str(error)
    return f"{words.strip()[:_SHOWN]} (SQLSTATE {error.sqlstate or 'none'})"


def _end_of(text: str, match: re.Match[str]) -> int:
    if match["comment"]:
        return _end_of_comment(text, match.end())
    if match["dollar"]:
        close = text.find(match["dollar"], match.end())
        return len(text) if close < 0 else close + len(match["dollar"])
    return match.end()


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(text, position)):
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return len(text) if depth else position


@contextmanager
def _killed_after(instance: Instance, seconds: float) -> Iterator[None]:
    watchdog = threading.Timer(seconds, stop_at_once, [instance])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        watchdog.join()
