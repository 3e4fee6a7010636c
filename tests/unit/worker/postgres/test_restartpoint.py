"""When a backup of a standby can begin behind its parent's end: the rule, without servers."""

from dataclasses import replace

import pytest

from shared.domain.lsn import Lsn
from worker.postgres.restartpoint import _answer
from worker.postgres.server_position import ServerPosition

PARENT_STOP = Lsn(1000)
STANDBY = ServerPosition(
    system_identifier="7",
    in_recovery=True,
    replay_paused=False,
    position=Lsn(1500),
    redo=Lsn(900),
    checkpoint=Lsn(950),
    full_page_writes=True,
)
# It goes on writing, and its last checkpoint is the one that the standby has.
BUSY = replace(STANDBY, in_recovery=False, position=Lsn(1600))
CHECKPOINTED = replace(BUSY, redo=Lsn(1100), checkpoint=Lsn(1400))


@pytest.mark.parametrize(
    ("standby", "primary", "answer"),
    [
        (replace(STANDBY, redo=PARENT_STOP), None, True),
        (replace(STANDBY, redo=PARENT_STOP), BUSY, True),
        (replace(STANDBY, in_recovery=False), None, True),
        (STANDBY, None, None),
        (STANDBY, BUSY, None),
        (STANDBY, CHECKPOINTED, True),
        (STANDBY, replace(CHECKPOINTED, redo=PARENT_STOP), True),
        (replace(STANDBY, position=CHECKPOINTED.checkpoint), CHECKPOINTED, None),
        (STANDBY, replace(CHECKPOINTED, redo=Lsn(999)), None),
        (STANDBY, replace(BUSY, position=PARENT_STOP), False),
        (STANDBY, replace(BUSY, position=Lsn(1001)), None),
        (STANDBY, replace(CHECKPOINTED, in_recovery=True), None),
    ],
    ids=[
        "its restartpoint is behind the parent's end",
        "whatever the primary says",
        "it is a primary by now",
        "nobody knows when the next checkpoint comes",
        "the primary has made none yet",
        "the checkpoint is replayed, the restartpoint will be made",
        "the checkpoint begins exactly at the parent's end",
        "the checkpoint's record is not replayed yet",
        "the checkpoint began before the parent ended",
        "nothing was written since the parent ended",
        "something was",
        "what is called the primary is none",
    ],
)
def test_an_incremental_can_begin(
    standby: ServerPosition, primary: ServerPosition | None, *, answer: bool | None
) -> None:
    assert _answer(standby, primary, PARENT_STOP) is answer
