"""People at work: small transactions that add, revise, comment on and delete documents."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import psycopg

from local.document_database.heartbeat import beating
from local.document_database.load import organization_of
from local.document_database.prose import Prose, make_prose

# Calm enough that two cores stay free for the backup, busy enough that pages keep changing.
PAUSE_S = 0.005
_AUTHORS = 2000


@dataclass(slots=True)
class Activity:
    """What was committed so far."""

    added: int = 0
    revised: int = 0
    commented: int = 0
    deleted: int = 0

    @property
    def transactions(self) -> int:
        return self.added + self.revised + self.commented + self.deleted


@contextmanager
def changing(conninfo: str, *, seed: int = 2) -> Iterator[Activity]:
    """Change the database from a thread, with a heartbeat beside it, until the block ends.

    An error of the changes, if any, comes up there.
    """
    stop, activity, errors = threading.Event(), Activity(), list[psycopg.Error]()

    def work() -> None:
        try:
            _work(conninfo, make_prose(seed, sentences=2000), activity, stop)
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="workload")
    thread.start()
    try:
        with beating(conninfo):
            yield activity
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def _work(conninfo: str, prose: Prose, activity: Activity, stop: threading.Event) -> None:
    random = Random(prose.random.random())  # noqa: S311 - repeatable choices, not secrets
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while not stop.wait(PAUSE_S):
            choice = random.random()
            if choice < 0.35:  # noqa: PLR2004 - shares of the mix
                activity.added += _add(connection, prose, random)
            elif choice < 0.7:  # noqa: PLR2004
                activity.revised += _revise(connection, prose, random)
            elif choice < 0.87:  # noqa: PLR2004
                activity.commented += _comment(connection, prose, random)
            else:
                activity.deleted += _delete(connection, random)


def _add(connection: psycopg.Connection, prose: Prose, random: Random) -> int:
    author = random.randint(1, _AUTHORS)
    organization = organization_of(author)
    with connection.transaction():
        connection.execute(
            "with added as (insert into documents (organization_id, author_id, title, body) "
            "values (%s, %s, %s, %s) returning id) "
            "insert into summaries (document_id, revision, text) select id, 1, %s from added",
            [organization, author, prose.title(), prose.text(random.randint(8, 90)), prose.text(3)],
        )
        _count(connection, organization, 1)
        if random.random() < 0.1:  # noqa: PLR2004 - now and then somebody thinks better of it
            with connection.transaction():
                _count(connection, organization, 1000)
                raise psycopg.Rollback
    return 1


def _revise(connection: psycopg.Connection, prose: Prose, random: Random) -> int:
    with connection.transaction():
        row = connection.execute(
            "update documents set body = %s, revision = revision + 1, updated_at = now() "
            "where id = (select id from documents where id >= %s order by id limit 1) "
            "returning id, revision",
            [prose.text(random.randint(8, 90)), _some_id(connection, random)],
        ).fetchone()
        if row is None:
            return 0
        with connection.transaction():  # a savepoint: subtransactions must survive recovery, too
            connection.execute(
                "update summaries set revision = %s, text = %s where document_id = %s",
                [row[1], prose.text(3), row[0]],
            )
    return 1


def _comment(connection: psycopg.Connection, prose: Prose, random: Random) -> int:
    found = connection.execute(
        "insert into comments (document_id, author_id, text) "
        "select id, %s, %s from documents where id >= %s order by id limit 1",
        [random.randint(1, _AUTHORS), prose.text(1), _some_id(connection, random)],
    )
    return found.rowcount


def _delete(connection: psycopg.Connection, random: Random) -> int:
    with connection.transaction():
        row = connection.execute(
            "delete from documents "
            "where id = (select id from documents where id >= %s order by id limit 1) "
            "returning organization_id",
            [_some_id(connection, random)],
        ).fetchone()
        if row is None:
            return 0
        _count(connection, row[0], -1)
    return 1


def _count(connection: psycopg.Connection, organization: int, change: int) -> None:
    connection.execute(
        "update organizations set document_count = document_count + %s where id = %s",
        [change, organization],
    )


def _some_id(connection: psycopg.Connection, random: Random) -> int:
    row = connection.execute("select max(id) from documents").fetchone()
    return random.randint(1, (row and row[0]) or 1)
