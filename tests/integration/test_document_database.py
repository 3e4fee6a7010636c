"""The demo's database: its size, its compressibility, and that its rules hold at every commit."""

import itertools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import zstandard

from local import postgres_programs
from local.document_database.load import TABLES, VALIDATION_SQL, load
from local.document_database.mistake import content, empty_by_mistake
from local.document_database.prose import make_prose
from local.document_database.workload import changing
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer

pytestmark = pytest.mark.integration
MEGABYTES = 24
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    programs = postgres_programs.find(17)
    assert programs is not None
    # Not pytest's own: PostgreSQL's account could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="pgkeep-test-"))
    try:
        with PostgresServer.create(programs, folder, ClusterOptions(fsync=False)) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def database(server: PostgresServer) -> str:
    name = f"d{next(_numbers)}"
    with server.connect() as connection:
        connection.execute(f"create database {name}".encode())
    return server.dsn(name)


def validate(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.read_only = True
        connection.execute(VALIDATION_SQL.read_bytes())


def test_a_database_has_the_size_that_was_asked_for(database: str) -> None:
    heard: list[int] = []
    loaded = load(database, MEGABYTES, report=lambda done, _total: heard.append(done))
    assert loaded.size == pytest.approx(MEGABYTES * 2**20, rel=0.5)  # system tables weigh 8 MB
    assert heard[-1] == loaded.documents
    validate(database)


def test_pages_of_prose_compress_between_two_and_three_to_one(database: str) -> None:
    load(database, MEGABYTES)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("checkpoint")
        path = connection.execute(
            "select current_setting('data_directory') || '/' "
            "|| pg_relation_filepath(reltoastrelid) from pg_class where relname = 'documents'"
        ).fetchone()
    assert path is not None
    pages = Path(path[0]).read_bytes()
    packed = zstandard.ZstdCompressor(level=1).compress(pages)
    assert 2.0 < len(pages) / len(packed) < 3.0


def test_one_seed_tells_one_story() -> None:
    first, second = make_prose(7, sentences=100), make_prose(7, sentences=100)
    assert first.text(20) == second.text(20)
    assert make_prose(8, sentences=100).text(20) != second.text(20)


def test_the_rules_hold_while_the_database_changes(database: str) -> None:
    load(database, 4)
    with changing(database) as activity:
        for _ in range(5):
            threading.Event().wait(0.2)
            validate(database)
    assert min(activity.added, activity.revised, activity.commented, activity.deleted) > 0
    validate(database)


def test_a_heart_beats_every_second_and_once_at_once(database: str) -> None:
    load(database, 1)
    with changing(database):
        threading.Event().wait(1.3)
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "select count(*), clock_timestamp() - max(at) < interval '1.2 s' from heartbeat"
        ).fetchone()
    assert row == (2, True)


def test_a_mistake_leaves_nothing_and_tells_what_was_there_before_while_others_write(
    database: str,
) -> None:
    load(database, 1)
    with psycopg.connect(database, autocommit=True) as connection:
        before = content(connection)
        connection.execute("update comments set text = text || '!' where id = 1")
        assert content(connection).rows == before.rows > 0
        assert content(connection) != before
        with changing(database) as activity:
            mistake = empty_by_mistake(database)
        assert activity.transactions > 0
        assert mistake.lost.rows > 0
        assert mistake.lost.sha256 not in {before.sha256, content(connection).sha256}
        assert content(connection).rows < mistake.lost.rows
    validate(database)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("update organizations set document_count = 0 where id = 1", "torn"),
        ("delete from summaries where document_id = 1", "do not belong together"),
        ("update summaries set revision = 9 where document_id = 1", "do not belong together"),
        ("update documents set updated_at = now() + interval '1 day' where id = 1", "future"),
        ("update documents set author_id = author_id + 1 where id = 1", "lack an organization"),
        ("insert into heartbeat (at) values (now() + interval '1 day')", "heartbeats lie in"),
        (f"truncate {', '.join(TABLES)}", "empty"),
    ],
)
def test_broken_content_does_not_pass_validation(database: str, damage: str, words: str) -> None:
    load(database, 1)
    with psycopg.connect(database) as connection:
        connection.execute(damage.encode())
    with pytest.raises(psycopg.errors.RaiseException, match=words):
        validate(database)
