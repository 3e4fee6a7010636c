"""How far behind the archive is, in seconds: since when it is not known to hold all of the WAL.

A server that is connected sends what it writes at once. So an archive that holds everything heard
of is complete, for as long as the connection lives; without one, nobody knows.
"""

from collections import deque
from typing import Final

from shared.domain.lsn import Lsn

# Positions that the server tells within it count as told at the first one's time.
_RESOLUTION_S: Final = 1.0


class WalLag:
    """Positions that the server told and the archive does not reach yet. Not thread-safe."""

    def __init__(self, now: float) -> None:
        """`now` is monotonic, here as everywhere."""
        self._complete_at = now
        self._missing: deque[tuple[Lsn, float]] = deque()

    def begin(self) -> None:
        """Another connection, or timeline: its positions say nothing about those told before."""
        if self._missing:
            self._complete_at = self._missing[0][1]
            self._missing.clear()

    def hear(self, server_end: Lsn, now: float) -> None:
        """The server has written so far."""
        if not self._missing:
            self._missing.append((server_end, self._complete_at))
            return
        last, told_at = self._missing[-1]
        if server_end <= last:
            return
        if now - told_at < _RESOLUTION_S:
            self._missing[-1] = (server_end, told_at)
        else:
            self._missing.append((server_end, now))

    def settle(self, durable: Lsn, now: float) -> None:
        """The archive holds everything up to `durable`, and the connection lives."""
        while self._missing and self._missing[0][0] <= durable:
            self._missing.popleft()
        if not self._missing:
            self._complete_at = now

    def seconds(self, now: float) -> float:
        return now - (self._missing[0][1] if self._missing else self._complete_at)
