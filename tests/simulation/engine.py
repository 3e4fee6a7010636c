"""Virtual time: a heap of things to do. Nothing here waits, and the same seed does the same."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Final

# A Sunday, so that the first week has a full backup on its first day.
BEGIN: Final = datetime(2027, 1, 3, tzinfo=UTC)

# A process of the world: it does something, and says for how long it does nothing then.
Process = Iterator[timedelta]


@dataclass
class Engine:
    """`now` is the true time; what clocks of the world show is their own affair."""

    now: datetime = BEGIN
    steps: int = 0
    _due: list[tuple[datetime, int, Callable[[], None]]] = field(default_factory=list)
    _serial: Iterator[int] = field(default_factory=count)

    def at(self, when: datetime, act: Callable[[], None]) -> None:
        """What lies in the past is done next."""
        heappush(self._due, (max(when, self.now), next(self._serial), act))

    def after(self, pause: timedelta, act: Callable[[], None]) -> None:
        self.at(self.now + pause, act)

    def spawn(self, process: Process) -> None:
        """Runs until its first pause now."""
        pause = next(process, None)
        if pause is not None:
            self.after(pause, lambda: self.spawn(process))

    def run(self, until: datetime, after_each: Callable[[], None]) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, act = heappop(self._due)
            self.steps += 1
            act()
            after_each()
        self.now = until


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def days(number: float) -> timedelta:
    return timedelta(days=number)
