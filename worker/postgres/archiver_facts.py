"""How far a server is, and what its archiver still has to hand over, by SQL.

An agent pushes without the answers; they are for reports.
"""

from dataclasses import dataclass
from typing import Final, LiteralString

from shared.domain.lsn import Lsn
from worker.postgres.table_facts import Connect, fetch_one, mapped_errors


@dataclass(frozen=True, slots=True)
class ArchiverFacts:
    """`waiting_files` is None for a role that may not look into archive_status."""

    timeline: int
    position: Lsn
    waiting_files: int | None


def archiver_facts(connect: Connect, database: str) -> ArchiverFacts:
    """Raises as connection does. pg_monitor may ask all of it."""
    with connect(database) as connection, mapped_errors():
        server = fetch_one(connection, _SERVER)
        waiting = fetch_one(connection, _WAITING) if server["may_list"] else {"waiting": None}
    return ArchiverFacts(server["timeline"], Lsn.parse(server["position"]), waiting["waiting"])


_SERVER: Final[LiteralString] = """
SELECT CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
       END AS timeline,
       (CASE WHEN pg_is_in_recovery()
             THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
             ELSE pg_current_wal_flush_lsn() END)::text AS position,
       has_function_privilege('pg_ls_archive_statusdir()', 'EXECUTE') AS may_list
"""

_WAITING: Final[LiteralString] = """
SELECT count(*) AS waiting FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'
"""
