"""What can be restored before a run of `expire` and after it, by a second mind.

The oracle knows what retention cannot: where timelines fork, which is sealed. It looks for a way
from some backup to an instant, segment by segment, and shares no rule with what it judges. A run
each day, over weeks with failovers, restores and lost WAL, may never take an instant away that is
within the promised time, nor a chain or the WAL of a backup that stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupKind
from shared.domain.kept_backup import KeptBackup, RetentionPolicy
from shared.domain.lsn import Lsn
from shared.domain.retention import RetentionPlan, plan_retention
from shared.domain.wal_branches import WalBranch
from shared.domain.wal_retention import WalStretch

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SEGMENT = 1000
DAYS = 40

Segment = tuple[int, int]  # timeline and number; each server fills one a day


@dataclass
class Server:
    timeline: int
    next: int
    until: int = DAYS


@dataclass
class World:
    """`fork` of a timeline: the one that it left, and in the middle of which segment."""

    fork: dict[int, Segment] = field(default_factory=dict)
    written: dict[Segment, int] = field(default_factory=dict)
    lost: set[Segment] = field(default_factory=set)
    taken: list[KeptBackup] = field(default_factory=list)

    def archived(self, day: int) -> dict[Segment, int]:
        return {one: at for one, at in self.written.items() if at <= day and one not in self.lost}

    def needed(self, backup: KeptBackup, goal: Segment) -> list[Segment] | None:
        """Segments that recovery reads on its way there; None when no way leads there."""
        timeline, last = goal
        found: list[Segment] = []
        while timeline != backup.timeline:
            if timeline not in self.fork:
                return None
            parent, at = self.fork[timeline]
            found += [(timeline, number) for number in range(at, last + 1)]
            timeline, last = parent, at - 1
        begin = backup.start_lsn // SEGMENT
        if begin > last:
            return None
        return [*found, *((timeline, number) for number in range(begin, last + 1))]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Servers that are promoted or set back, of which the old one may go on for a while."""
    world = World()
    forks = draw(st.dictionaries(st.integers(3, DAYS - 2), st.integers(0, 8), max_size=2))
    plans = draw(
        st.dictionaries(
            st.integers(0, DAYS - 1), st.sampled_from(["full", "incremental", "bad"]), min_size=6
        )
    )
    servers = [Server(1, 1)]
    for day in range(DAYS):
        if day in forks:
            fork(world, servers, day, forks[day], draw(st.integers(0, 6)))
        running = [one for one in servers if one.until > day]
        for server in running:
            world.written[server.timeline, server.next] = day
            server.next += 1
        if day in plans:
            take(world, draw(st.sampled_from(running)), day, plans[day])
    for gone in draw(st.lists(st.sampled_from(sorted(world.written)), max_size=3)):
        world.lost.add(gone)
    return world


def fork(world: World, servers: list[Server], day: int, back: int, lingers: int) -> None:
    """The end of a backup switches segments: no fork lies in one with a backup."""
    old = servers[-1]
    first = world.fork.get(old.timeline, (0, 0))[1] + 1
    at = max(first, old.next - 1 - back)
    while (old.timeline, at) in {(one.timeline, one.start_lsn // SEGMENT) for one in world.taken}:
        at += 1
    if at >= old.next:
        return
    old.until = day + lingers
    world.fork[old.timeline + 1] = (old.timeline, at)
    servers.append(Server(old.timeline + 1, at))


def take(world: World, server: Server, day: int, kind: str) -> None:
    number = server.next - 1
    start = Lsn(number * SEGMENT + 600)
    parents = [one for one in world.taken if one.timeline == server.timeline and one.verified]
    parent = parents[-1] if kind == "incremental" and parents else None
    world.taken.append(
        KeptBackup(
            label=f"{day:03}",
            kind=BackupKind.INCREMENTAL if parent else BackupKind.FULL,
            at=BEGIN + (day + 0.6) * DAY,
            timeline=server.timeline,
            start_lsn=start,
            digest=f"{day}",
            parent=parent.label if parent else None,
            verified=kind != "bad",
            wal=(WalStretch(server.timeline, start, Lsn(start + 100)),),
        )
    )


def restorable(
    world: World, backups: list[KeptBackup], archive: dict[Segment, int], since: int
) -> Iterator[Segment]:
    """Ends of segments that were written since that day, and that a good chain leads to."""
    there = {one.label: one for one in backups}
    usable = [one for one in backups if chain_is_good(one, there)]
    for goal, day in archive.items():
        ways = (world.needed(one, goal) for one in usable) if day >= since else ()
        if any(way is not None and all(one in archive for one in way) for way in ways):
            yield goal


def chain_is_good(backup: KeptBackup, there: dict[str, KeptBackup]) -> bool:
    parent = there.get(backup.parent or "")
    if backup.parent is not None and (parent is None or not chain_is_good(parent, there)):
        return False
    return backup.verified


def seen(backup: KeptBackup, archive: dict[Segment, int], day: int) -> KeptBackup:
    """As the survey tells it: verified a day later, and how far its own timeline goes on."""
    numbers = {number for timeline, number in archive if timeline == backup.timeline}
    end = backup.start_lsn // SEGMENT
    while end in numbers:
        end += 1
    begun = end > backup.start_lsn // SEGMENT
    continuous = begun and end > max(numbers)
    return replace(
        backup,
        verified=backup.verified and backup.at + DAY <= BEGIN + (day + 1) * DAY,
        continuous=continuous,
        reaches=Lsn(end * SEGMENT) if begun and not continuous else None,
    )


def planned(
    backups: list[KeptBackup], archive: dict[Segment, int], policy: RetentionPolicy, day: int
) -> RetentionPlan:
    timelines: dict[int, list[Segment]] = {}
    for one in sorted(archive):
        timelines.setdefault(one[0], []).append(one)
    branches = [
        WalBranch(
            timeline,
            Lsn(ones[0][1] * SEGMENT),
            BEGIN + (max(archive[one] for one in ones) + 1) * DAY,
        )
        for timeline, ones in timelines.items()
    ]
    known = [seen(one, archive, day) for one in backups]
    return plan_retention(known, policy, BEGIN + (day + 1) * DAY, branches=branches)


POLICIES = st.builds(
    RetentionPolicy,
    full_days=st.sampled_from([1, 5, 12]),
    incremental_days=st.sampled_from([1, 4]),
    wal_days=st.sampled_from([1, 5, 10, 20]),
    keep_last=st.integers(1, 2),
    deletions_per_run=st.sampled_from([1, 99]),
)


@given(worlds(), POLICIES)
def test_i4_no_run_takes_an_instant_of_the_promised_time_away(
    world: World, policy: RetentionPolicy
) -> None:
    assert next(losses(world, policy), None) is None


def losses(world: World, policy: RetentionPolicy) -> Iterator[str]:
    """Each run that takes something away, told for whoever has to find out why."""
    gone: set[str] = set()
    deleted: set[Segment] = set()
    for day in range(DAYS):
        there = [
            one for one in world.taken if one.at < BEGIN + (day + 1) * DAY and one.label not in gone
        ]
        left = without(world.archived(day), deleted)
        plan = planned(there, left, policy, day)
        gone |= {one.label for one in plan.delete}
        deleted |= {one for one in left if not plan.wal.needs(*bounds(one))}
        rest = without(left, deleted)
        stay = [one for one in there if one.label not in gone]
        since = day + 1 - int(policy.wal_days)
        before = {*restorable(world, [seen(one, left, day) for one in there], left, since)}
        after = {*restorable(world, [seen(one, rest, day) for one in stay], rest, since)}
        if before - after:
            lines = [
                f"day {day}: {sorted(before - after)} cannot be restored any more",
                f"deleted {sorted(deleted)}, never stored {sorted(world.lost)}",
                f"forks {world.fork}, floor {plan.floor}, begins {plan.wal_before}",
                *(
                    f"{one.label} {one.timeline}/{one.start_lsn / SEGMENT} {one.kind} on "
                    f"{one.parent} {one.state}{' is gone' if one.label in gone else ''}"
                    for one in there
                ),
            ]
            yield "\n".join(lines)


def without(archive: dict[Segment, int], deleted: set[Segment]) -> dict[Segment, int]:
    return {one: day for one, day in archive.items() if one not in deleted}


def bounds(one: Segment) -> tuple[int, Lsn, Lsn]:
    timeline, number = one
    return timeline, Lsn(number * SEGMENT), Lsn((number + 1) * SEGMENT)
