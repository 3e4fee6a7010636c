"""Somebody empties a table by mistake: an instant to recover from, and what was there before it."""

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg

TABLE: Final = "comments"
# Whoever recovers to "the second before" must find the table as it was counted.
_THINKS_S: Final = 1.5
# Rows in a fixed order, their values as text that no setting of a session changes.
_CONTENT: Final = """
    select count(*), encode(sha256(convert_to(coalesce(string_agg(concat_ws('|',
        id, document_id, author_id, text, extract(epoch from created_at)), E'\\n' order by id),
        ''), 'UTF8')), 'hex')
    from comments
"""


@dataclass(frozen=True, slots=True)
class TableContent:
    """Equal contents have equal rows and, but for a collision of SHA-256, equal values."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """`lost` is what the table held until `at`, the server's time just before the commit."""

    lost: TableContent
    at: datetime


def content(connection: psycopg.Connection) -> TableContent:
    """What the table holds, as this transaction sees it."""
    [(rows, digest)] = connection.execute(_CONTENT).fetchall()
    return TableContent(rows, digest)


def empty_by_mistake(conninfo: str) -> Mistake:
    """Count, think, truncate, commit, in one transaction that lets no writer in between.

    So the table had exactly this content in the whole second before the commit, although others
    go on writing. They wait for the lock, as they would for anybody's TRUNCATE.
    """
    with psycopg.connect(conninfo) as connection:
        connection.execute("lock table comments in access exclusive mode")
        lost = content(connection)
        threading.Event().wait(_THINKS_S)
        connection.execute("truncate comments")
        [(at,)] = connection.execute("select clock_timestamp()").fetchall()
    return Mistake(lost, at)
