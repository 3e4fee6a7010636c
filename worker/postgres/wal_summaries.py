"""WAL summaries, without which PostgreSQL takes no incremental backup: by SQL, of one timeline."""

from typing import Any, Final, LiteralString

import psycopg

from shared.domain.lsn import Lsn
from shared.domain.parent_choice import WalSummaries
from worker.postgres.table_facts import fetch_all, fetch_one, mapped_errors


def wal_summaries(connection: psycopg.Connection[Any], timeline: int) -> WalSummaries:
    """What the server has of `timeline`; of a release without summaries, that they are off.

    A role that may not list them learns from the server whether they suffice: then none is
    reported as missing. Raises what the server says, and PostgresGone.
    """
    with mapped_errors():
        state = fetch_one(connection, _STATE)
        if not state["enabled"]:
            return WalSummaries(enabled=False)
        rows = fetch_all(connection, _RANGES) if state["listable"] else []
    ranges = [
        (Lsn.parse(row["start_lsn"]), Lsn.parse(row["end_lsn"]))
        for row in rows
        if row["tli"] == timeline
    ]
    return WalSummaries(enabled=True, ranges=ranges)


_STATE: Final[LiteralString] = """
SELECT coalesce(current_setting('summarize_wal', true), 'off') = 'on' AS enabled,
       to_regprocedure('pg_available_wal_summaries()') IS NOT NULL
       AND has_function_privilege('pg_available_wal_summaries()', 'EXECUTE') AS listable
"""

_RANGES: Final[LiteralString] = """
SELECT tli, start_lsn::text AS start_lsn, end_lsn::text AS end_lsn
  FROM pg_available_wal_summaries()
"""
