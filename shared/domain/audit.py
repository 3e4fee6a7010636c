"""What a schedule promised in a period, and what of it was done."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cronsim import CronSim


@dataclass(frozen=True, slots=True)
class Duty:
    """A kind of job: its ticks in the period, those after which it was done, and the others.

    `open` is 1 when the newest tick's time is not over yet and nothing was done so far.
    """

    kind: str
    cron: str
    expected: int
    met: int
    open: int
    missed: tuple[datetime, ...]


def duties(
    schedule: Iterable[tuple[str, str | bool]],
    done: Mapping[str, Sequence[datetime]],
    since: datetime,
    until: datetime,
) -> tuple[Duty, ...]:
    """For each kind that is switched on. A tick is met by what was done before the next tick.

    `since` and `until` carry UTC; the period is [since, until).
    """
    return tuple(
        _duty(kind, cron, sorted(done.get(kind, ())), since, until)
        for kind, cron in schedule
        if isinstance(cron, str)
    )


def _duty(kind: str, cron: str, done: Sequence[datetime], since: datetime, until: datetime) -> Duty:
    met, pending, missed = 0, 0, []
    for tick, following in _ticks(cron, since, until):
        position = bisect_left(done, tick)
        if position < len(done) and done[position] < following:
            met += 1
        elif following > until:
            pending += 1
        else:
            missed.append(tick)
    return Duty(kind, cron, met + pending + len(missed), met, pending, tuple(missed))


def _ticks(cron: str, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Each tick of the period with the one after it."""
    upcoming = CronSim(cron, since - timedelta(microseconds=1))
    tick = next(upcoming)
    while tick < until:
        following = next(upcoming)
        yield tick, following
        tick = following
