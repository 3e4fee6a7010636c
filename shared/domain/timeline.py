"""Timelines: how histories of one cluster branch. Format and rules: PostgreSQL's timeline.c."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from shared.domain.lsn import Lsn
from shared.errors import Corrupt, LsnInvalid

# Each line is "<parent timeline>\t<switch LSN>\t<reason>"; `#` begins a comment.
_LINE: Final = re.compile(r"\s*(?P<timeline>\d{1,10})\s+(?P<lsn>\S+)(?:\s.*)?", re.DOTALL)


class HistoryInvalid(Corrupt):
    """A timeline history file that PostgreSQL would not accept."""

    code = "history-invalid"
    hint = "Compare it with the file of the same name in the server's pg_wal directory."


@dataclass(frozen=True, slots=True)
class Branch:
    """One ancestor: `timeline` was left at `switch`, where the next one begins."""

    timeline: int
    switch: Lsn


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """One timeline and its ancestors, oldest first."""

    timeline: int
    ancestors: tuple[Branch, ...] = ()

    @classmethod
    def parse(cls, timeline: int, content: bytes) -> Self:
        """Raises HistoryInvalid: syntax, order, or an ancestor that is no older than its child."""
        ancestors: list[Branch] = []
        # PostgreSQL ends a line at \n alone: a restore point's name may hold Unicode's other ends.
        for raw in content.decode("utf-8", "replace").split("\n"):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            ancestors.append(_branch(timeline, line))
        known = [branch.timeline for branch in ancestors]
        if known != sorted(set(known)) or any(number >= timeline for number in known):
            raise HistoryInvalid(f"{timeline:08X}.history does not list its ancestors in order")
        return cls(timeline, tuple(ancestors))

    def end_of(self, timeline: int) -> Lsn | None:
        """Where this history leaves `timeline`; None for its own, which has no end yet.

        Raises KeyError for a timeline that is not part of this history.
        """
        if timeline == self.timeline:
            return None
        return {branch.timeline: branch.switch for branch in self.ancestors}[timeline]

    def holds(self, timeline: int, lsn: Lsn) -> bool:
        """Whether position `lsn` of `timeline` is part of this history."""
        if timeline == self.timeline:
            return True
        ends: Mapping[int, Lsn] = {branch.timeline: branch.switch for branch in self.ancestors}
        return timeline in ends and lsn <= ends[timeline]


def _branch(timeline: int, line: str) -> Branch:
    wrong = HistoryInvalid(f"{timeline:08X}.history holds the line {line[:80]!r}")
    match = _LINE.fullmatch(line)
    if match is None or int(match["timeline"]) == 0:
        raise wrong
    try:
        return Branch(int(match["timeline"]), Lsn.parse(match["lsn"]))
    except LsnInvalid:
        raise wrong from None
