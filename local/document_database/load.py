"""Fill a database with documents until it has a given size on disk; repeatable from its seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import psycopg

from local.document_database.heartbeat import create_heartbeat
from local.document_database.prose import Prose, make_prose

TABLES = ("organizations", "users", "documents", "summaries", "comments")
VALIDATION_SQL = Path(str(files("local.document_database") / "validate_recovery.sql"))

_ORGANIZATIONS = 50
_USERS = 2000
_BODY_SENTENCES = range(8, 90)
_SUMMARY_SENTENCES = 3
# Measured: heap, TOAST and indexes for one document with its summary and its comment.
_BYTES_PER_DOCUMENT = 5300
_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_BATCH = 2000

Row = tuple[object, ...]
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LoadedDatabase:
    """`size` in bytes, as pg_database_size counts."""

    documents: int
    size: int


def load(
    conninfo: str, megabytes: int, *, seed: int = 1, report: Report = lambda _done, _total: None
) -> LoadedDatabase:
    """Make the schema in an empty database and fill it. `report` hears documents done and total."""
    total = max(1, megabytes * 2**20 // _BYTES_PER_DOCUMENT)
    prose = make_prose(seed)
    with psycopg.connect(conninfo) as connection:
        _run(connection, "schema.sql")
        create_heartbeat(connection)
        _copy(connection, "organizations (id, name)", _organizations())
        _copy(connection, "users (id, organization_id, email)", _users())
        for first in range(1, total + 1, _BATCH):
            last = min(first + _BATCH - 1, total)
            _load_documents(connection, prose, range(first, last + 1))
            report(last, total)
        _run(connection, "indexes.sql")
    return LoadedDatabase(total, _vacuum_and_size(conninfo))


def organization_of(user_id: int) -> int:
    """Users are dealt to organizations in turn; the workload relies on it."""
    return user_id % _ORGANIZATIONS + 1


def _run(connection: psycopg.Connection, name: str) -> None:
    connection.execute((files("local.document_database") / name).read_bytes())


def _copy(connection: psycopg.Connection, target: str, rows: Iterator[Row]) -> None:
    with connection.cursor().copy(f"copy {target} from stdin".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def _organizations() -> Iterator[Row]:
    return ((number, f"Organization {number}") for number in range(1, _ORGANIZATIONS + 1))


def _users() -> Iterator[Row]:
    for number in range(1, _USERS + 1):
        yield number, organization_of(number), f"user{number}@example.org"


def _load_documents(connection: psycopg.Connection, prose: Prose, numbers: range) -> None:
    columns = "id, organization_id, author_id, title, body, created_at, updated_at"
    _copy(connection, f"documents ({columns})", _documents(prose, numbers))
    summaries = ((number, 1, prose.text(_SUMMARY_SENTENCES)) for number in numbers)
    _copy(connection, "summaries (document_id, revision, text)", summaries)
    comments = (
        (number, number, prose.random.randint(1, _USERS), prose.text(1)) for number in numbers
    )
    _copy(connection, "comments (id, document_id, author_id, text)", comments)


def _documents(prose: Prose, numbers: range) -> Iterator[Row]:
    for number in numbers:
        author = prose.random.randint(1, _USERS)
        at = _FIRST_DAY + timedelta(minutes=number % 1_000_000)
        body = prose.text(prose.random.choice(_BODY_SENTENCES))
        yield number, organization_of(author), author, prose.title(), body, at, at


def _vacuum_and_size(conninfo: str) -> int:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("vacuum analyze")
        row = connection.execute("select pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0
