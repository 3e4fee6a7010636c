"""Physical replication slots and timeline histories, over a walsender connection.

Commands and their answers: PostgreSQL's chapter protocol-replication.
"""

import re
from dataclasses import dataclass
from typing import Final

from psycopg import pq
from psycopg.pq.abc import PGconn

from shared.domain.lsn import Lsn
from shared.errors import ProtocolViolation, Unavailable
from worker.postgres.replication import (
    Row,
    drain,
    expect,
    failure,
    integer,
    lsn,
    next_result,
    rows,
    send_command,
)

OBJECT_IN_USE: Final = b"55006"  # errcodes.txt
UNDEFINED_FILE: Final = b"58P01"


class SlotBusy(Unavailable):
    """The slot is in use: by another receiver, or by a walsender of ours that is not gone yet."""

    code = "wal-slot-busy"
    hint = "Look at active_pid in pg_replication_slots; each receiver needs a slot of its own."


@dataclass(frozen=True, slots=True)
class Slot:
    """A physical slot. One without `restart_lsn` was never used, or was invalidated."""

    restart_lsn: Lsn | None
    restart_timeline: int | None


def read_slot(connection: PGconn, name: str) -> Slot | None:
    """None when there is no slot of this name. Raises what the server says of a logical one."""
    kind, restart, timeline = _row(connection, f"READ_REPLICATION_SLOT {quoted(name)}", 3)
    if kind is None:
        return None
    return Slot(
        None if restart is None else lsn(restart),
        None if timeline is None else integer(timeline),
    )


def create_slot(connection: PGconn, name: str) -> None:
    """A physical slot that holds back WAL from now on."""
    _row(connection, f"CREATE_REPLICATION_SLOT {quoted(name)} PHYSICAL RESERVE_WAL", 4)


def drop_slot(connection: PGconn, name: str) -> None:
    """Raises SlotBusy while somebody uses it."""
    send_command(connection, f"DROP_REPLICATION_SLOT {quoted(name)}")
    result = expect_or(connection, pq.ExecStatus.COMMAND_OK, OBJECT_IN_USE)
    if result is None:
        raise SlotBusy(f"slot {name} cannot be dropped while it is active")
    drain(connection)


def timeline_history(connection: PGconn, timeline: int) -> bytes | None:
    """Content of the timeline's history file; None when the server does not have it."""
    send_command(connection, f"TIMELINE_HISTORY {timeline}")
    found = expect_or(connection, pq.ExecStatus.TUPLES_OK, UNDEFINED_FILE)
    if found is None:
        return None
    drain(connection)
    match found:
        case [(_, bytes() as content)]:
            return content
        case _:
            raise ProtocolViolation("TIMELINE_HISTORY did not answer with a name and a content")


def expect_or(connection: PGconn, status: pq.ExecStatus, sqlstate: bytes) -> list[Row] | None:
    """Rows of the result; None if the command failed with this SQLSTATE, and is over."""
    result = next_result(connection)
    if result is not None and result.error_field(pq.DiagnosticField.SQLSTATE) == sqlstate:
        end_command(connection)
        return None
    if result is None or result.status != status:
        raise failure(result) if result else ProtocolViolation("the server did not answer")
    return rows(result)


def end_command(connection: PGconn) -> None:
    """Read the rest of a command whose outcome is known."""
    while next_result(connection) is not None:
        pass


def quoted(slot: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", slot):  # ReplicationSlotValidateName
        raise ValueError(f"{slot!r} cannot name a replication slot")
    return f'"{slot}"'


def _row(connection: PGconn, command: str, columns: int) -> Row:
    send_command(connection, command)
    found = rows(expect(connection, pq.ExecStatus.TUPLES_OK))
    drain(connection)
    if len(found) != 1 or len(found[0]) != columns:
        raise ProtocolViolation(f"the server did not answer with one row of {columns}: {command}")
    return found[0]
