"""A sign of life for whoever watches the process from outside: a file that is touched.

A process that serves touches it in its own loop, so one that hangs does not. It says nothing of
how well the work goes: findings and metrics do.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.errors import Unavailable

# The longest pause between two turns of a loop is half a minute, after an outage; the agent's is
# `wal.report_seconds`, a minute by default.
STOPPED_AFTER_S: Final = 300


class HeartbeatStopped(Unavailable):
    """The process that serves has not shown a sign of life for minutes."""

    code = "heartbeat-stopped"
    hint = "Restart it; what it was doing is taken up again. Its log tells what came last."


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Beats into `path`; without one, nowhere. Never fails: what watches would restart us."""

    path: Path | None = None
    _failed: list[OSError] = field(default_factory=list)

    def beat(self) -> None:
        if self.path is None or self._failed:
            return
        try:
            self.path.touch(mode=0o600)
        except OSError as error:
            self._failed.append(error)


def check_heartbeat(path: Path, now: float) -> str:
    """How long ago the last beat was. `now` is in seconds since 1970. Raises HeartbeatStopped."""
    try:
        silent_s = max(0.0, now - path.stat().st_mtime)
    except OSError as error:
        raise HeartbeatStopped(f"no heartbeat at {path}: {error.strerror}") from None
    if silent_s > STOPPED_AFTER_S:
        raise HeartbeatStopped(f"the last heartbeat was {silent_s:.0f} s ago")
    return f"the last heartbeat was {silent_s:.0f} s ago"
