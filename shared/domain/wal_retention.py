"""Which of the archived WAL is still needed: the arithmetic, by positions and timelines alone.

Timelines branch, and only their sealed history files say where. A timeline descends from lower
numbers, so what is needed from a position on is needed on its own timeline and on all higher ones:
that is never too little, and nobody has to open a history file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.lsn import Lsn


@dataclass(frozen=True, slots=True, order=True)
class WalStretch:
    """Bytes [start, end) of a timeline."""

    timeline: int
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True, order=True)
class WalOrigin:
    """From `start` on, everything of `timeline` is needed, and of those that descend from it."""

    timeline: int
    start: Lsn


@dataclass(frozen=True, slots=True)
class WalNeeds:
    """What backups need that stay. Without an origin nothing can be judged: all is needed."""

    origins: frozenset[WalOrigin] = frozenset()
    stretches: frozenset[WalStretch] = frozenset()

    def before(self, timeline: int) -> Lsn | None:
        """Below this only stretches are needed; None where nothing is needed without an end."""
        starts = (one.start for one in self.origins if one.timeline <= timeline)
        return min(starts, default=None)

    @property
    def known(self) -> Mapping[int, Lsn]:
        """`before` of the timelines that the needs name."""
        named = ((timeline, self.before(timeline)) for timeline in self._timelines())
        return {timeline: start for timeline, start in named if start is not None}

    def needs(self, timeline: int, start: Lsn, end: Lsn) -> bool:
        """Whether anything of the segment [start, end) is needed.

        Of a segment recovery reads the first byte, too: ask for whole segments, never for pieces.
        """
        if not self.origins:
            return True
        before = self.before(timeline)
        if before is not None and end > before:
            return True
        return any(
            one.timeline == timeline and start < one.end and one.start < end
            for one in self.stretches
        )

    def _timelines(self) -> list[int]:
        return sorted({one.timeline for one in self.origins})
