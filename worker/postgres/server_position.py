"""Where a server stands in the WAL, be it a primary or a standby, by SQL.

Any role that may log in may ask all of it.
"""

from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from shared.domain.lsn import Lsn
from shared.errors import Unavailable
from worker.postgres.table_facts import fetch_one, mapped_errors

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class ServerPosition:
    """`position` is how far a primary has written, or a standby replayed. `redo` and `checkpoint`
    are those of the last checkpoint, on a standby of its last restartpoint, and `full_page_writes`
    is what the primary had then.
    """

    system_identifier: str
    in_recovery: bool
    replay_paused: bool
    position: Lsn
    redo: Lsn
    checkpoint: Lsn
    full_page_writes: bool


def server_position(connection: Connection) -> ServerPosition:
    """Raises what the server says, and PostgresGone."""
    with mapped_errors():
        row = fetch_one(connection, _POSITION)
    row.update({name: Lsn.parse(row[name]) for name in ("position", "redo", "checkpoint")})
    return ServerPosition(**row)


def position_if_it_answers(connection: Connection | None) -> ServerPosition | None:
    """None without a connection, and when it is lost."""
    try:
        return None if connection is None else server_position(connection)
    except Unavailable:
        return None


# pg_control_checkpoint() reads pg_control, which a standby writes at its restartpoints only.
_POSITION: Final[LiteralString] = """
SELECT system_identifier::text AS system_identifier,
       pg_is_in_recovery() AS in_recovery,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false
       END AS replay_paused,
       (CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), redo_lsn)
             ELSE pg_current_wal_lsn() END)::text AS position,
       redo_lsn::text AS redo,
       checkpoint_lsn::text AS checkpoint,
       full_page_writes
  FROM pg_control_system(), pg_control_checkpoint()
"""
