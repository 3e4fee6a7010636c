"""The backups that recovery leans on, and that must not go: what is newest, what a promise begins.

A backup may be newer and good, and yet of a branch that was left: see shared.domain.wal_branches.
So each living timeline has a first backup of its own, and the newest has the floor.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from shared.domain.backup import BackupKind
from shared.domain.kept_backup import KeptBackup, RetentionPolicy
from shared.domain.lsn import Lsn
from shared.domain.wal_branches import WalBranch, leads_to, living, newest

# A chain has at most a hundred (`incremental.chain_limit`); one made up in a circle has no end.
_LINKS: Final = 1000


@dataclass(frozen=True, slots=True)
class Anchors:
    """What recovery leans on. `counted`: the good full backups, oldest first.

    `floors`: of those with continuous WAL the newest, and the newest that the newest timeline
    carries on, which is the `floor`. `firsts`: of those that had ended when the promised WAL begins
    the newest, and the newest of each living timeline; `reach_back`: each has one. `bridges`: with
    which the log goes on behind a gap, incremental ones among them.
    """

    counted: tuple[KeptBackup, ...]
    floor: KeptBackup | None
    floors: tuple[KeptBackup, ...]
    firsts: tuple[KeptBackup, ...]
    bridges: tuple[KeptBackup, ...]
    reach_back: bool

    @classmethod
    def of(
        cls,
        known: Collection[KeptBackup],
        policy: RetentionPolicy,
        now: datetime,
        branches: Collection[WalBranch],
    ) -> Self:
        counted = _counted(known, now)
        continuous = [item for item in counted if item.continuous]
        floors = [_newest_on(one, continuous, branches) for one in (None, newest(branches))]
        begin = now - timedelta(days=policy.wal_days)
        # Only from what had ended by then on can every later instant be reached.
        ended = [item for item in counted if (item.finished_at or item.at) <= begin]
        firsts = [_newest_on(one, ended, branches) for one in (None, *living(branches, begin))]
        return cls(
            counted=tuple(counted),
            floor=floors[-1],
            floors=_there(floors),
            firsts=_there(firsts),
            bridges=tuple(_bridges(known, _there(firsts), now)),
            reach_back=None not in firsts,
        )


def _newest_on(
    branch: WalBranch | None, ordered: Sequence[KeptBackup], branches: Collection[WalBranch]
) -> KeptBackup | None:
    """Any will do for no branch."""
    fit = (
        item
        for item in reversed(ordered)
        if branch is None or leads_to(branch, item.timeline, item.end_lsn, branches)
    )
    return next(fit, None)


def _bridges(
    known: Collection[KeptBackup], firsts: Sequence[KeptBackup], now: datetime
) -> Iterator[KeptBackup]:
    """Of each timeline, since the promise begins, whatever is not reached from one before it.

    What a lower timeline reaches of a higher one only history files tell: a timeline's own earliest
    is taken for a bridge. Of which full backup it is the child does not matter: a chain needs the
    log of its newest link alone.
    """
    since = min((item.at for item in firsts), default=None)
    by_label = {item.label: item for item in known}
    reached: dict[int, Lsn | None] = {}
    for item in sorted(known, key=lambda one: (one.end_lsn, one.label)):
        late = since is None or item.at >= since
        goes_on = item.continuous or item.reaches is not None
        if item.is_future(now) or not (late and goes_on and _is_sound(item, by_label)):
            continue
        end = reached.get(item.timeline, Lsn(0))
        if end is not None and end < item.end_lsn:
            reached[item.timeline] = None if item.continuous else item.reaches
            if item not in firsts:
                yield item


def _is_sound(item: KeptBackup, by_label: Mapping[str, KeptBackup]) -> bool:
    """With every link that it builds on."""
    links: list[KeptBackup | None] = [item]
    while (link := links[-1]) is not None and link.good and link.parent and len(links) < _LINKS:
        links.append(by_label.get(link.parent))
    return link is not None and link.good and link.parent is None


def _there(found: Iterable[KeptBackup | None]) -> tuple[KeptBackup, ...]:
    """Each once."""
    return tuple({item.label: item for item in found if item is not None}.values())


def _counted(known: Iterable[KeptBackup], now: datetime) -> list[KeptBackup]:
    good = (item for item in known if item.kind is BackupKind.FULL and item.good)
    return sorted(
        (item for item in good if not item.is_future(now)), key=lambda item: (item.at, item.label)
    )
