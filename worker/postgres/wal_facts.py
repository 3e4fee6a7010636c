"""How far a server has written its WAL, and what keeps it there, by SQL.

pg_monitor may ask all of it. A receiver lives without the answers.
"""

from dataclasses import dataclass
from typing import Final, LiteralString

from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segment_start
from worker.postgres.table_facts import Connect, fetch_all, fetch_one, mapped_errors


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A replication slot; sizes in bytes. `keep_bytes` is None where nothing limits a slot."""

    active: bool
    wal_status: str | None
    retained_bytes: int | None
    keep_bytes: int | None


def wal_facts(connect: Connect, database: str, slot: str) -> tuple[Lsn, SlotFacts | None]:
    """How far the WAL is flushed at the server, and its slot. Raises as connection does."""
    with connect(database) as connection, mapped_errors():
        position = Lsn.parse(fetch_one(connection, _POSITION)["position"])
        slots = fetch_all(connection, _SLOT, {"slot": slot, "position": str(position)})
    return position, SlotFacts(**slots[0]) if slots else None


def oldest_segment(connect: Connect, database: str, after: str, segment_size: int) -> Lsn | None:
    """Start of the oldest segment in pg_wal that lies behind the one named, on any timeline."""
    with connect(database) as connection, mapped_errors():
        oldest = fetch_all(connection, _OLDEST, {"after": after[8:]})[0]["oldest"]
    # Which timeline's it is does not matter for where it starts.
    return oldest and segment_start(WalFileName.parse(f"{1:08X}{oldest}"), segment_size)


_POSITION: Final[LiteralString] = """
SELECT (CASE WHEN pg_is_in_recovery()
             THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
             ELSE pg_current_wal_flush_lsn() END)::text AS position
"""

_SLOT: Final[LiteralString] = """
SELECT active, wal_status,
       (%(position)s::pg_lsn - restart_lsn)::bigint AS retained_bytes,
       (SELECT nullif(setting, '-1')::bigint << 20 FROM pg_settings
         WHERE name = 'max_slot_wal_keep_size') AS keep_bytes
  FROM pg_replication_slots WHERE slot_name = %(slot)s
"""  # 20: the setting counts in MB

_OLDEST: Final[LiteralString] = """
SELECT min(substr(name, 9)) AS oldest FROM pg_ls_waldir()
 WHERE name ~ '^[0-9A-F]{24}$' AND substr(name, 9) > %(after)s
"""
