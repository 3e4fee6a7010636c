"""Which backups the log of a timeline can follow on, told without opening a history file.

A restored or promoted server goes on with a timeline of its own, whose log begins in the segment
of the fork. A backup of a lower timeline that ended after that belongs to the branch that was left:
however new and good it is, nobody reaches an instant of the living branch from it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from shared.domain.lsn import Lsn


@dataclass(frozen=True, slots=True)
class WalBranch:
    """A timeline of the archive: where its oldest segment starts, when its newest was stored."""

    timeline: int
    first: Lsn
    newest_at: datetime


def leads_to(branch: WalBranch, timeline: int, end: Lsn, branches: Iterable[WalBranch]) -> bool:
    """Whether a backup that ended there can be recovered along the branch.

    Of the timelines between, each may be one that was passed on the way; so it must have ended
    before any of them forked. One that ended in the segment of a fork may have ended on either side
    of it: that is no.
    """
    forks = (one.first for one in branches if timeline < one.timeline <= branch.timeline)
    return timeline <= branch.timeline and all(end <= fork for fork in forks)


def living(branches: Iterable[WalBranch], begin: datetime) -> list[WalBranch]:
    """Those to which something was added since, by timeline."""
    found = (branch for branch in branches if branch.newest_at >= begin)
    return sorted(found, key=lambda branch: branch.timeline)


def newest(branches: Iterable[WalBranch]) -> WalBranch | None:
    """The one added to last; of several, as a copy of a repository makes them, the highest."""
    return max(branches, key=lambda one: (one.newest_at, one.timeline), default=None)
