"""The agenda of a fleet: for each cluster and kind of job, when it is its turn.

It follows from the settings and is kept in the catalogue, ordered by time, so that each minute only
what is due needs to be read, however large the fleet.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.domain.cluster import ClusterName
from shared.domain.schedule import (
    LATE_AFTER,
    ScheduleKind,
    Tick,
    delay_of,
    latest_tick,
    next_tick,
)

Key = tuple[ClusterName, ScheduleKind]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the settings want of one cluster and kind."""

    cluster: ClusterName
    kind: ScheduleKind
    cron: str
    delay: timedelta = timedelta()

    @property
    def key(self) -> Key:
        return self.cluster, self.kind


@dataclass(frozen=True, slots=True)
class AgendaEntry:
    """`next_at`: when it is looked at again, the delay included. `served`: the newest tick that was
    dealt with. `skipped`: how many in a row passed because the one before still ran.
    """

    cluster: ClusterName
    kind: ScheduleKind
    cron: str
    delay: timedelta
    next_at: datetime
    served: datetime | None = None
    skipped: int = 0

    @property
    def key(self) -> Key:
        return self.cluster, self.kind

    def tick_at(self, now: datetime) -> Tick | None:
        """The newest tick whose time has come; None if it was dealt with, by any clock."""
        due = latest_tick(self.cron, now - self.delay)
        if self.served is not None and due <= self.served:
            return None
        return Tick(self.cluster, self.kind, due, late=now - due - self.delay > LATE_AFTER)

    def after(self, tick: Tick, *, skipped: bool = False) -> "AgendaEntry":
        """Once the tick was dealt with."""
        return replace(
            self,
            next_at=next_tick(self.cron, tick.due) + self.delay,
            served=tick.due,
            skipped=self.skipped + 1 if skipped else 0,
        )

    def once_more(self, now: datetime) -> "AgendaEntry":
        """Of an entry that came up without a tick to serve: the clock had been ahead."""
        return replace(self, next_at=next_tick(self.cron, now - self.delay) + self.delay)


@dataclass(frozen=True, slots=True)
class AgendaChanges:
    """What has to be written so that the agenda is what the settings want."""

    put: tuple[AgendaEntry, ...] = ()
    remove: tuple[Key, ...] = ()


def wishes_of(
    cluster: ClusterName, crons: Mapping[ScheduleKind, str], spread: timedelta = timedelta()
) -> Iterator[Wish]:
    """Both kinds of backup have one delay: of one tick they come up together, and the full one
    stands for both.
    """
    backups = [cron for kind, cron in crons.items() if kind.backup_kind]
    for kind, cron in crons.items():
        if kind.backup_kind:
            yield Wish(cluster, kind, cron, delay_of(cluster, "backup", backups, spread))
        else:
            yield Wish(cluster, kind, cron, delay_of(cluster, kind, [cron], spread))


def follow(
    wishes: Iterable[Wish], known: Mapping[Key, AgendaEntry], now: datetime
) -> AgendaChanges:
    """A changed cron or delay holds from now on; what was served stays served.

    A cluster without any backup wants its first full one at once; all else waits for its tick.
    """
    wanted = {one.key: one for one in wishes}
    put = tuple(
        _entry(one, known.get(one.key), now)
        for one in wanted.values()
        if not _is_same(one, known.get(one.key))
    )
    return AgendaChanges(put, tuple(key for key in known if key not in wanted))


def _is_same(one: Wish, entry: AgendaEntry | None) -> bool:
    return entry is not None and (entry.cron, entry.delay) == (one.cron, one.delay)


def _entry(one: Wish, before: AgendaEntry | None, now: datetime) -> AgendaEntry:
    if before is not None:
        next_at = _next_at(one, before, now)
        return replace(before, cron=one.cron, delay=one.delay, next_at=next_at)
    if one.kind is ScheduleKind.FULL:
        return AgendaEntry(one.cluster, one.kind, one.cron, one.delay, next_at=now)
    next_at, served = next_tick(one.cron, now) + one.delay, latest_tick(one.cron, now)
    return AgendaEntry(one.cluster, one.kind, one.cron, one.delay, next_at, served)


def _next_at(one: Wish, before: AgendaEntry, now: datetime) -> datetime:
    """A tick that has come and was not dealt with stays owed, delayed or not, and keeps its turn,
    whatever the expression is now.
    """
    if before.served is None:
        return before.next_at
    if one.cron == before.cron:
        return next_tick(one.cron, before.served) + one.delay
    if before.served < latest_tick(before.cron, now):
        return before.next_at
    return next_tick(one.cron, now) + one.delay
