"""The planner against a PostgreSQL that replays record by record: F10."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.domain.recovery_plan import (
    BackupCandidate,
    RecoveryPlan,
    TargetUnreachable,
    plan_recovery,
    recovery_windows,
)
from shared.domain.recovery_target import (
    RecoveryTarget,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    parse_time,
)
from tests.harness.recovery_world import (
    NOON,
    SEGMENT,
    UNITS,
    Line,
    Pieces,
    Recovery,
    RecoveryFailed,
    World,
    backup,
    lsn,
)

END = 16  # units of log in these worlds
WHOLE: Pieces = ((0, UNITS),)
FILES: Sequence[Pieces] = (
    *(WHOLE,) * 15,
    (),
    ((0, 3),),
    ((0, 1), (1, 2), (0, 2), (2, 4)),
    ((0, 2), (1, 3)),
    ((0, 1), (2, 4)),
    ((1, 4),),
)


@st.composite
def lines(draw: st.DrawFn) -> Mapping[int, Line]:
    """Up to four timelines: children, grandchildren, and two of one parent."""
    made = {1: Line(1, None, 0, draw(points()), draw(quiet()))}
    for number in range(2, draw(st.sampled_from([3, 4, 2, 1])) + 1):
        parent = made[draw(st.sampled_from(sorted(made)))]
        begin = draw(st.integers(max(parent.begin, 3), END - 2))
        made[number] = Line(number, parent.number, begin, draw(points()), draw(quiet()))
    return made


def points() -> st.SearchStrategy[Mapping[int, str]]:
    return st.dictionaries(st.integers(1, END - 1), st.sampled_from("ab"), min_size=1, max_size=3)


def quiet() -> st.SearchStrategy[frozenset[int]]:
    return st.frozensets(st.integers(0, END - 1), max_size=4)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Most of the log is archived whole."""
    tree = draw(lines())
    files = {
        (line.number, segment): draw(st.sampled_from(FILES))
        for line in tree.values()
        for segment in range(line.begin // UNITS, draw(st.sampled_from([4, 3, 2, 0])))
    }
    lost = draw(st.sampled_from([0] * 5 + sorted(tree)))
    made = draw(st.lists(backups(tree), min_size=1, max_size=4, unique_by=lambda one: one.label))
    return World(tree, files, made, frozenset({lost} - {1}))


@st.composite
def backups(draw: st.DrawFn, tree: Mapping[int, Line]) -> BackupCandidate:
    line = tree[draw(st.sampled_from([1, 1, *tree]))]
    start = draw(st.integers(line.begin, min(line.begin + 5, END - 2)))
    stop = draw(st.integers(start + 1, min(start + 5, END - 1)))
    return backup(line.number, start, stop, included=draw(st.booleans()))


def targets() -> st.SearchStrategy[RecoveryTarget]:
    """Times of commits, and between commits."""
    units = st.integers(3, END)
    seconds = st.builds(lambda unit, more: unit * 10 + more, units, st.integers(0, 5))
    times = st.builds(ToTime, seconds.map(lambda at: NOON + timedelta(seconds=at)), st.booleans())
    positions = st.builds(ToLsn, units.map(lsn), st.booleans())
    named = st.sampled_from("aabc").map(ToName)
    ends = st.sampled_from([ToLatest(), ToImmediate()])
    return st.one_of(times, positions, named, ends)


@settings(max_examples=300, deadline=None)
@given(worlds(), targets())
def test_f10_the_newest_backup_that_works_on_the_newest_timeline_that_works(
    world: World, target: RecoveryTarget
) -> None:
    works = {
        timeline: candidates
        for timeline in world.lines
        if (
            candidates := [item for item in world.backups if _serves(world, item, timeline, target)]
        )
    }
    plan = _planned(world, target)
    if plan is None:
        assert works == {}
    elif not _has_hidden_point(world, plan):
        assert plan.timeline in works
        assert plan.backup == max(works[plan.timeline], key=lambda one: (one.stop_lsn, one.label))
        if not isinstance(target, ToLatest):
            assert plan.timeline == max(works)


@settings(max_examples=300, deadline=None)
@given(worlds(), targets(), st.none() | st.integers(1, 4), st.data())
def test_f10_what_the_plan_promises_is_what_postgresql_asks_for(
    world: World, target: RecoveryTarget, timeline: int | None, data: st.DataObject
) -> None:
    label = data.draw(st.sampled_from([None, *(item.label for item in world.backups)]))
    plan = _planned(world, target, label, timeline)
    if plan is None or _has_hidden_point(world, plan):
        return
    assert label in {None, plan.backup.label}
    done = Recovery(world, plan.backup, plan.timeline, target).run()
    assert done.opened == list(plan.segments) or plan.segments == ()
    assert lsn(done.position) - plan.backup.start_lsn <= plan.wal_bytes
    replayed = range(plan.backup.start_lsn // SEGMENT * UNITS, done.position)
    if timeline is not None:
        assert all(world.owner(plan.timeline, at) == world.owner(timeline, at) for at in replayed)
    assert plan.path[0].start == plan.backup.start_lsn
    assert plan.path[0].timeline == plan.backup.timeline
    assert plan.path[-1].timeline == plan.timeline
    assert plan.backup.label in plan.window.backups
    assert plan.window.start <= plan.backup.stop_lsn <= lsn(done.position) <= plan.window.end


@settings(max_examples=150, deadline=None)
@given(worlds(), targets(), st.none() | st.integers(1, 4))
def test_every_hint_can_be_pasted(
    world: World, target: RecoveryTarget, timeline: int | None
) -> None:
    try:
        plan_recovery(world.backups, world.archive, target, timeline=timeline)
    except TargetUnreachable as error:
        hints = [part for part in error.advice.replace(". ", ".. ").split(". ") if "--" in part]
        assert hints or not any(
            _recovered(world, item, item.timeline, ToImmediate()) for item in world.backups
        )
        for hint in hints:
            for options in hint.rstrip(".").split(", "):
                _paste(world, options[options.index("--") :])


@settings(max_examples=30, deadline=None)
@given(worlds())
def test_a_window_holds_what_can_be_reached_and_nothing_else(world: World) -> None:
    windows = recovery_windows(world.backups, world.archive)
    for unit in range(END):
        for timeline in world.lines:
            target = ToLsn(lsn(unit), inclusive=False)
            plan = _planned(world, target, None, timeline)
            reached = plan is not None and plan.timeline == timeline
            within = any(
                window.timeline == timeline and window.start <= lsn(unit) < window.end
                for window in windows
            )
            assert within <= reached
            if reached and any(window.timeline == timeline for window in windows):
                assert within


def _serves(world: World, item: BackupCandidate, timeline: int, target: RecoveryTarget) -> bool:
    """By trial, and by what a planner must be careful about: a backup ends before its target."""
    if isinstance(target, ToImmediate) and item.timeline != timeline:
        return False
    if isinstance(target, ToTime) and item.finished_at > target.time:
        return False
    if isinstance(target, ToLsn) and item.stop_lsn > target.lsn:
        return False
    done = _recovered(world, item, timeline, target)
    if done is None or (isinstance(target, ToName) and lsn(done.position) <= item.stop_lsn):
        return False
    return timeline in {item.timeline, *_files_of(world, item, timeline)}


def _recovered(
    world: World, item: BackupCandidate, timeline: int, target: RecoveryTarget
) -> Recovery | None:
    try:
        return Recovery(world, item, timeline, target).run()
    except RecoveryFailed:
        return None


def _files_of(world: World, item: BackupCandidate, timeline: int) -> set[int]:
    """Timelines of which a recovery without a target reads files."""
    recovery = Recovery(world, item, timeline, None)
    with suppress(RecoveryFailed):
        recovery.run()
    return recovery.lines


def _planned(
    world: World, target: RecoveryTarget, label: str | None = None, timeline: int | None = None
) -> RecoveryPlan | None:
    try:
        return plan_recovery(world.backups, world.archive, target, label=label, timeline=timeline)
    except TargetUnreachable:
        return None


def _has_hidden_point(world: World, plan: RecoveryPlan) -> bool:
    """The backup carries a restore point of the name in its own WAL: only PostgreSQL can know."""
    units = range(plan.backup.start_lsn // lsn(1), plan.backup.stop_lsn // lsn(1))
    owners = ((unit, world.owner(plan.backup.timeline, unit)) for unit in units)
    names = {owner.points.get(unit) for unit, owner in owners}
    return isinstance(plan.target, ToName) and plan.target.name in names


def _paste(world: World, options: str) -> None:
    """Raises TargetUnreachable when the hint was wrong."""
    words = shlex.split(options)
    given = {
        word.removeprefix("--"): value
        for word, value in zip(words, [*words[1:], ""], strict=True)
        if word.startswith("--")
    }
    inclusive = "exclusive" not in given
    readers: Mapping[str, Callable[[str], RecoveryTarget]] = {
        "to-time": lambda text: ToTime(parse_time(text), inclusive),
        "to-lsn": lambda text: ToLsn(Lsn.parse(text), inclusive),
        "to-name": ToName,
        "to-latest": lambda _: ToLatest(),
        "immediate": lambda _: ToImmediate(),
    }
    [target] = [readers[name](text) for name, text in given.items() if name in readers]
    assert given.keys() <= {*readers, "exclusive", "label", "timeline"}
    timeline = int(given["timeline"]) if "timeline" in given else None
    plan_recovery(world.backups, world.archive, target, label=given.get("label"), timeline=timeline)
