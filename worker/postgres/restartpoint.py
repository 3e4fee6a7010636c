"""Whether a backup of a standby can begin behind the end of an earlier one.

A standby writes no checkpoint of its own. A backup of it begins at the last checkpoint of the
primary that it made a restartpoint of, and PostgreSQL refuses an incremental that would begin
before its parent ended (basebackup_incremental.c: "manifest requires WAL from final timeline …
ending at …, but this backup starts at …"). BASE_BACKUP makes a restartpoint by itself, but only of
a checkpoint that has been replayed; so it is the primary's next checkpoint that is waited for.

Nothing is forced: a CHECKPOINT on the primary is the load that reading from a standby spares it,
and on the standby it would make the restartpoint that BASE_BACKUP makes anyway.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from shared.domain.lsn import Lsn
from worker.postgres.server_position import (
    Connection,
    ServerPosition,
    position_if_it_answers,
    server_position,
)

# With PostgreSQL's defaults: checkpoint_timeout (5 min) until a checkpoint begins, 0.9 of it
# (checkpoint_completion_target) to write it, and another until the standby makes its restartpoint.
RESTARTPOINT_PATIENCE_S: Final = 900.0
_LOOK_EVERY_S: Final = 1.0


def await_restartpoint(
    standby: Connection,
    beyond: Lsn,
    patience_s: float,
    primary: Connection | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Whether a backup that is begun now starts at `beyond`, an earlier one's stop, or later.

    With a connection to the `primary` it need not wait for what will not come, nor for what
    BASE_BACKUP does itself. A server that is no standby may begin anywhere. Raises what asking
    the standby raises; a primary that goes away is done without.
    """
    pause, deadline = threading.Event(), clock() + patience_s
    while True:
        here, there = server_position(standby), position_if_it_answers(primary)
        answer = _answer(here, there, beyond)
        if answer is not None or clock() >= deadline:
            return bool(answer)
        pause.wait(_LOOK_EVERY_S)


def _answer(standby: ServerPosition, primary: ServerPosition | None, beyond: Lsn) -> bool | None:
    """None while it is open."""
    if not standby.in_recovery or standby.redo >= beyond:
        return True
    if primary is None or primary.in_recovery:
        return None
    if primary.redo >= beyond and standby.position > primary.checkpoint:
        return True  # the checkpoint is replayed: BASE_BACKUP will make a restartpoint of it
    if primary.position <= beyond:
        return False  # nothing was written since, and an idle primary makes no checkpoint
    return None
