"""What goes wrong, how often, and for how long."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from random import Random

from tests.simulation.engine import Engine, days, hours, minutes
from tests.simulation.weather import Part, Weather


@dataclass(frozen=True, slots=True)
class Faults:
    """Of things that happen to one job, event or call: how likely. Of things that happen to the
    whole fleet or to one cluster: so many days lie between two, on average; 0 is never.
    """

    worker_dies: float = 0.03
    worker_freezes: float = 0.01
    job_fails_once: float = 0.03
    job_fails: float = 0.01
    backup_is_damaged: float = 0.015
    event_lost: float = 0.01
    event_twice: float = 0.03
    event_late: float = 0.03
    app_dies: float = 0.003
    reply_lost: float = 0.003
    outage_days: float = 12
    clock_jump_days: float = 15
    host_clock_days: float = 40
    wal_down_days: float = 25
    wal_lost_days: float = 50
    server_down_days: float = 60
    replication_days: float = 15
    lifecycle_days: float = 20

    @classmethod
    def none(cls) -> "Faults":
        return cls(**dict.fromkeys(cls.__slots__, 0))


@dataclass
class Trouble:
    """Begins one kind of trouble now and then; `begin` is given how long it is to last."""

    engine: Engine
    random: Random
    weather: Weather
    calm: bool = False

    def now_and_then(
        self, every_days: float, shortest: timedelta, longest: timedelta,
        begin: Callable[[timedelta], None],
    ) -> None:  # fmt: skip
        if not every_days:
            return

        def strike() -> None:
            if self.calm:
                return
            begin(shortest + (longest - shortest) * self.random.random() ** 2)
            self.engine.after(self._pause(every_days), strike)

        self.engine.after(self._pause(every_days), strike)

    def outages(self, faults: Faults) -> None:
        for part in Part:
            begin = partial(self._take_down, part)
            self.now_and_then(faults.outage_days, minutes(1), hours(8), begin)
        self.now_and_then(faults.clock_jump_days, minutes(10), hours(5), self._jump)

    def _take_down(self, part: Part, span: timedelta) -> None:
        self.weather.fire(f"outage of the {part}")
        self.weather.take_down(part, self.engine.now + span)

    def _jump(self, span: timedelta) -> None:
        """There, and later back."""
        forward = self.random.random() < 0.5
        self.weather.fire(f"the clock jumped {'forward' if forward else 'back'}")
        step = hours(self.random.uniform(0.05, 3))
        self.weather.jump(step if forward else -step)
        self.engine.after(span, self._jump_back)

    def _jump_back(self) -> None:
        self.weather.jump(timedelta())

    def _pause(self, every_days: float) -> timedelta:
        return days(self.random.expovariate(1 / every_days))
