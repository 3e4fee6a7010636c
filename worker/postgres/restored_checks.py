"""What is looked at in a restored cluster; each function gives one Check.

Order matters. `restored_tables` first: it judges transaction numbers, and every write here uses
some up. Then collations, pg_amcheck, and the operator's SQL (worker.postgres.validation_sql).
`check_page_checksums` last, after `stop_cleanly`, because pg_checksums wants a server at rest.
A Check's detail is published, so it counts findings; the words of the programs, which name
relations, go into files beside the server's log.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg.rows import TupleRow

from shared.domain.drill import (
    Check,
    CheckOutcome,
    RestoredFacts,
    SnapshotFacts,
    TableFacts,
    TableState,
    TableVerdict,
    compare_tables,
)
from shared.domain.lsn import Lsn
from shared.errors import ProgramTimeout
from worker.postgres.instance import Instance, connect_instance
from worker.postgres.programs import ENVIRONMENT, ControlData, Finished, run_program
from worker.postgres.sandbox import PORT, SESSION_OPTIONS
from worker.postgres.table_facts import (
    Reference,
    TableName,
    count_tables,
    fetch_all,
    fetch_one,
    mapped_errors,
)

AMCHECK_CORRUPTION: Final = 2  # exit status of pg_amcheck when it found any (pg_amcheck.c)
_BAD_CHECKSUMS: Final = re.compile(r"Bad checksums:\s+(\d+)")


def restored_tables(
    instance: Instance,
    start: Sequence[SnapshotFacts],
    end: Sequence[SnapshotFacts],
    *,
    statement_timeout_s: int,
) -> tuple[TableVerdict, ...]:
    """Count the tables of the facts in the copy and compare. Run before anything writes to it."""
    ends = {facts.database: facts for facts in end}
    return tuple(
        verdict
        for facts in start
        for verdict in compare_tables(
            facts,
            ends[facts.database],
            restored_facts(instance, facts, ends[facts.database], statement_timeout_s),
        )
    )


def restored_facts(
    instance: Instance, start: SnapshotFacts, end: SnapshotFacts, statement_timeout_s: int
) -> RestoredFacts:
    """What the copy holds of one database's tables, and where its recovery ended."""
    names = [TableName.parse(facts.table, default_database="") for facts in start.tables]
    reference = Reference(start.xmin, end.horizon)
    connect = partial(connect_instance, instance, start.database)
    with connect() as connection, mapped_errors():
        tables = count_tables(
            connection, names, lambda: reference, statement_timeout_s=statement_timeout_s
        )
    with connect() as connection, mapped_errors():
        return RestoredFacts(
            lsn=recovery_end(connection),
            in_flight_committed=_in_flight_committed(connection, end),
            tables=tuple(
                _under_another_name(connection, facts, before)
                for facts, before in zip(tables, start.tables, strict=True)
            ),
        )


def recovery_end(connection: psycopg.Connection[TupleRow]) -> Lsn:
    """Where the copy left its source's timeline: the last line of its own history file."""
    history = str(fetch_one(connection, _HISTORY)["history"])
    entries = [line.split() for line in history.splitlines() if line[:1].isdigit()]
    return Lsn.parse(entries[-1][1])


def check_collations(
    instance: Instance, database: str, *, clock: Callable[[], float] = time.monotonic
) -> Check:
    """Text indexes sort as the source's C library did; under another version nothing about them
    can be proven here, good or bad. PostgreSQL knows the version since 15.
    """
    began = clock()
    with connect_instance(instance, database) as connection, mapped_errors():
        rows = fetch_all(connection, _COLLATIONS)
    differing = [row for row in rows if row["recorded"] != row["actual"]]
    detail = f"{len(rows)} databases, collation versions as recorded"
    if differing:
        detail = (
            f"{len(differing)} databases were made under collation version "
            f"{differing[0]['recorded']}, this host has {differing[0]['actual']}"
        )
    outcome = CheckOutcome.INCONCLUSIVE if differing else CheckOutcome.PASSED
    return _check("collations", outcome, detail, clock() - began)


def check_relations(
    instance: Instance,
    database: str,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> Check:
    """pg_amcheck on every heap and B-tree of every database; installs amcheck where it lacks."""
    began = clock()
    arguments = [
        instance.programs.path("pg_amcheck"),
        *("--host", str(instance.scratch.socket), "--port", str(PORT)),
        *("--username", instance.superuser, "--maintenance-db", database),
        *("--all", "--install-missing", "--no-password"),
    ]
    environment = {**ENVIRONMENT, "PGOPTIONS": SESSION_OPTIONS}
    run = partial(_run_logged, instance, arguments, timeout, environment)
    return _judged("pg_amcheck", run, _judge_amcheck, began, clock)


def check_page_checksums(
    instance: Instance,
    control: ControlData,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> Check:
    """pg_checksums over every page. The server must have been stopped cleanly."""
    began = clock()
    if not control.page_checksums:
        return _check("page_checksums", CheckOutcome.SKIPPED, "the cluster has none", 0.0)
    arguments = [instance.programs.path("pg_checksums"), "--check"]
    arguments += ["-D", str(instance.scratch.data)]
    run = partial(_run_logged, instance, arguments, timeout, ENVIRONMENT)
    return _judged("page_checksums", run, _judge_checksums, began, clock)


def _judged(
    name: str,
    run: Callable[[], Finished],
    judge: Callable[[Finished], tuple[CheckOutcome, str]],
    began: float,
    clock: Callable[[], float],
) -> Check:
    try:
        outcome, detail = judge(run())
    except ProgramTimeout as error:
        outcome, detail = CheckOutcome.INCONCLUSIVE, error.fact
    return _check(name, outcome, detail, clock() - began)


def _judge_amcheck(finished: Finished) -> tuple[CheckOutcome, str]:
    complaints = len(finished.output.splitlines())
    if finished.status == 0:
        return CheckOutcome.PASSED, "no heap or B-tree index is damaged"
    if finished.status == AMCHECK_CORRUPTION:
        return CheckOutcome.FAILED, f"{complaints} lines of complaints in pg_amcheck.log"
    return CheckOutcome.INCONCLUSIVE, f"ended with {finished.status}: see pg_amcheck.log"


def _judge_checksums(finished: Finished) -> tuple[CheckOutcome, str]:
    if finished.status == 0:
        return CheckOutcome.PASSED, "every page matches its checksum"
    if bad := _BAD_CHECKSUMS.search(finished.output):
        return CheckOutcome.FAILED, f"{bad[1]} pages do not match their checksum"
    return CheckOutcome.INCONCLUSIVE, f"ended with {finished.status}: see pg_checksums.log"


def _run_logged(
    instance: Instance, arguments: Sequence[str], timeout: float, environment: Mapping[str, str]
) -> Finished:
    finished = run_program(
        arguments, timeout=timeout, account=instance.account, environment=environment
    )
    name = f"{Path(arguments[0]).name}.log"
    instance.scratch.write(name, finished.output + finished.errors, instance.account)
    return finished


def _in_flight_committed(connection: psycopg.Connection[TupleRow], end: SnapshotFacts) -> bool:
    parameters = {"listed": list(end.in_progress), "first": end.xmax, "last": end.horizon - 1}
    return bool(fetch_all(connection, _IN_FLIGHT_COMMITTED, parameters)[0]["committed"])


def _under_another_name(
    connection: psycopg.Connection[TupleRow], facts: TableFacts, before: TableFacts
) -> TableFacts:
    """A table that is absent by name, but not by OID, was renamed while the backup ran."""
    if facts.state is not TableState.ABSENT:
        return facts
    oids = {"oids": list(before.identity)}
    if not fetch_all(connection, _KNOWN_OIDS, oids)[0]["known"]:
        return facts
    return TableFacts(facts.table, TableState.UNCOUNTED, problem="it has another name")


def _check(name: str, outcome: CheckOutcome, detail: str, seconds: float) -> Check:
    return Check(name, outcome, detail, round(seconds, 3))


_HISTORY: Final[LiteralString] = """
SELECT pg_read_file('pg_wal/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
                    || '.history') AS history
"""

_COLLATIONS: Final[LiteralString] = """
SELECT datcollversion AS recorded, pg_database_collation_actual_version(oid) AS actual
  FROM pg_database WHERE datallowconn AND datcollversion IS NOT NULL ORDER BY datname
"""

# pg_xact_status() raises for numbers that the copy has not reached.
_IN_FLIGHT_COMMITTED: Final[LiteralString] = """
SELECT EXISTS (
    SELECT FROM (SELECT unnest(%(listed)s::bigint[])
                 UNION ALL
                 SELECT generate_series(%(first)s::bigint, %(last)s::bigint)) AS in_flight (xid)
     WHERE CASE WHEN xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                THEN pg_xact_status(xid::text::xid8) = 'committed' ELSE false END) AS committed
"""

_KNOWN_OIDS: Final[LiteralString] = """
SELECT EXISTS (SELECT FROM pg_class WHERE oid = ANY (%(oids)s::oid[])) AS known
"""
