"""What is started now, what waits, and what passes: decided for all that is due at once.

At most so many jobs read from one server, and so many use the repository; one cluster has one
backup, one drill and so on at a time. What is over a limit stays due and comes up again. What comes
up while the one before it still runs is passed over.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from shared.domain.agenda import AgendaEntry
from shared.domain.cluster import ClusterName
from shared.domain.drill_target import DrillLevel
from shared.domain.job import JobVerb
from shared.domain.schedule import ScheduleKind, Tick

_VERBS: Final = {
    ScheduleKind.FULL: JobVerb.BACKUP,
    ScheduleKind.INCREMENTAL: JobVerb.BACKUP,
    ScheduleKind.VERIFY: JobVerb.VERIFY,
    ScheduleKind.EXPIRE: JobVerb.EXPIRE,
    ScheduleKind.MAINTENANCE: JobVerb.MAINTENANCE,
    ScheduleKind.AUDIT: JobVerb.AUDIT,
}
_BACKUPS: Final = frozenset({ScheduleKind.FULL.value, ScheduleKind.INCREMENTAL.value})
# Both read the server: one of them slows the other down.
_OF_THE_HOST: Final = frozenset({JobVerb.BACKUP, JobVerb.MAINTENANCE})
# Neither may see the repository half changed by the other; the worker's lease sees to it, too.
_APART: Final = {JobVerb.BACKUP: JobVerb.EXPIRE, JobVerb.EXPIRE: JobVerb.BACKUP}
# They may read any backup, also one that nothing wants any more. A verification reads new ones.
_READERS: Final = (JobVerb.RESTORE, JobVerb.DRILL)


def verb_of(kind: ScheduleKind) -> JobVerb:
    return _VERBS.get(kind, JobVerb.DRILL)


class Passed(StrEnum):
    """Why a tick is over without a job."""

    STILL_RUNNING = "still-running"
    FULL_INSTEAD = "full-instead"
    GUARDED = "guarded"
    BEING_READ = "being-read"
    WINDOW_OVER = "window-over"
    NOTHING_THERE = "nothing-there"


def kind_of(
    verb: JobVerb,
    kind: str | None = None,
    level: str | None = None,
    *,
    whole_chain: bool = False,
) -> ScheduleKind | None:
    """What a job does, in the schedule's words, by what its message says; None for what has none.

    A drill without a level is a quick one; a backup without a kind is one that nobody asked for
    here, and so known by its events alone. A verification of one backup, as each new one gets it,
    does not do what the schedule asks for: that reads the whole chain.
    """
    match verb:
        case JobVerb.BACKUP:
            return ScheduleKind(kind) if kind in _BACKUPS else None
        case JobVerb.DRILL:
            return ScheduleKind(f"drill_{level or DrillLevel.QUICK}")
        case JobVerb.VERIFY:
            return ScheduleKind.VERIFY if whole_chain else None
        case JobVerb.RESTORE:
            return None
        case _:
            return ScheduleKind(verb.value)


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """Asked for or running, and not silent; `kind` None where the schedule knows no such thing."""

    cluster: ClusterName
    verb: JobVerb
    kind: ScheduleKind | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """`place_of` names the host that a cluster runs on."""

    per_host: int
    per_account: int
    place_of: Callable[[ClusterName], str]


@dataclass(frozen=True, slots=True)
class DueTick:
    """An entry that has come up, and the tick to serve."""

    entry: AgendaEntry
    tick: Tick


@dataclass(slots=True)
class DispatchPlan:
    """Every tick that is due is in exactly one of the three."""

    start: list[DueTick] = field(default_factory=list)
    passed: list[tuple[DueTick, Passed]] = field(default_factory=list)
    waiting: list[DueTick] = field(default_factory=list)


def plan_dispatch(
    due: Iterable[DueTick],
    active: Iterable[ActiveJob],
    limits: Limits,
    *,
    guarded: Collection[ClusterName] = (),
    awaited: Collection[ClusterName] = (),
) -> DispatchPlan:
    """What proves first, then what protects; of one kind, whoever has waited longest.

    Not the oldest tick: whoever waits until the next tick would be behind all the others again.
    `guarded` are clusters of which nothing may expire now; `awaited` those of which somebody is
    about to restore something. Neither loses anything but a day.
    """
    return _Dispatch(active, limits, guarded, {*awaited}, sorted(due, key=_turn)).decide()


def _turn(one: DueTick) -> tuple[int, datetime, ClusterName]:
    return one.tick.kind.priority, one.entry.next_at, one.tick.cluster


class _Dispatch:
    """The state while one tick after the other is decided: what runs, as if all had begun."""

    def __init__(
        self,
        active: Iterable[ActiveJob],
        limits: Limits,
        guarded: Collection[ClusterName],
        read: set[ClusterName],
        ordered: Sequence[DueTick],
    ) -> None:
        self._limits, self._ordered = limits, ordered
        self._guarded, self._read = guarded, read
        self._running: set[tuple[ClusterName, JobVerb]] = set()
        self._kinds: set[tuple[ClusterName, ScheduleKind | None]] = set()
        self._hosts: Counter[str] = Counter()
        self._account = 0
        # A full backup holds all that an incremental of the same time would.
        self._fulls = {one.tick.cluster for one in ordered if one.tick.kind is ScheduleKind.FULL}
        for job in active:
            self._take(job.cluster, job.verb, job.kind)

    def decide(self) -> DispatchPlan:
        plan = DispatchPlan()
        for one in self._ordered:
            cluster, verb = one.tick.cluster, verb_of(one.tick.kind)
            reason = self._passes(one.tick)
            if reason is not None:
                plan.passed.append((one, reason))
            elif self._has_room(cluster, verb):
                self._take(cluster, verb, one.tick.kind)
                plan.start.append(one)
            else:
                plan.waiting.append(one)
        return plan

    def _passes(self, tick: Tick) -> Passed | None:
        full = tick.cluster in self._fulls or (tick.cluster, ScheduleKind.FULL) in self._kinds
        if full and tick.kind is ScheduleKind.INCREMENTAL:
            return Passed.FULL_INSTEAD
        if (tick.cluster, tick.kind) in self._kinds:
            return Passed.STILL_RUNNING
        if tick.kind is ScheduleKind.EXPIRE and tick.cluster in self._guarded:
            return Passed.GUARDED
        if tick.kind is ScheduleKind.EXPIRE and tick.cluster in self._read:
            return Passed.BEING_READ
        return None

    def _has_room(self, cluster: ClusterName, verb: JobVerb) -> bool:
        other = _APART.get(verb)
        if (cluster, verb) in self._running or (cluster, other) in self._running:
            return False
        if verb in _OF_THE_HOST:
            host = self._limits.place_of(cluster)
            if self._hosts[host] >= self._limits.per_host:
                return False
        return verb is JobVerb.MAINTENANCE or self._account < self._limits.per_account

    def _take(self, cluster: ClusterName, verb: JobVerb, kind: ScheduleKind | None) -> None:
        self._running.add((cluster, verb))
        if verb in _READERS:
            self._read.add(cluster)
        self._kinds.add((cluster, kind))
        if verb in _OF_THE_HOST:
            self._hosts[self._limits.place_of(cluster)] += 1
        if verb is not JobVerb.MAINTENANCE:
            self._account += 1
