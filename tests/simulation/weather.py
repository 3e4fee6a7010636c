"""What is out of order at a time, and the ports through which it is felt."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import wraps
from typing import Any, TypeVar, cast

from shared.errors import CatalogueUnavailable, PgkeepError, StorageUnavailable

Port = TypeVar("Port")


class Part(StrEnum):
    """What can be down."""

    STORAGE = "storage"
    QUEUES = "queues"
    CATALOGUE = "catalogue"
    APP = "function app"
    WORKERS = "workers"


_ERRORS: dict[Part, type[PgkeepError]] = {
    Part.STORAGE: StorageUnavailable,
    Part.QUEUES: StorageUnavailable,
    Part.CATALOGUE: CatalogueUnavailable,
}


class Killed(BaseException):
    """The process ends here: nobody may handle it."""


@dataclass
class Weather:
    """`ahead`: how much the function app's clock is ahead of the true time, for a while.

    `fatal_call`: so many more calls of ports, and the function app's process dies; `lost_reply`: so
    many more, and the answer is lost although the thing was done. `passed`: the latest that the
    function app's clock ever showed; until then it has seen the future.
    """

    clock: Callable[[], datetime]
    down_until: dict[Part, datetime] = field(default_factory=dict)
    ahead: timedelta = timedelta()
    fatal_call: int | None = None
    lost_reply: int | None = None
    fired: Counter[str] = field(default_factory=Counter)
    passed: datetime | None = None

    def is_down(self, part: Part) -> bool:
        return part in self.down_until and self.clock() < self.down_until[part]

    def take_down(self, part: Part, until: datetime) -> None:
        self.down_until[part] = max(until, self.down_until.get(part, until))

    def fire(self, fault: str) -> None:
        self.fired[fault] += 1

    def jump(self, step: timedelta) -> None:
        """The clock is so far ahead from now on."""
        if self.ahead:
            shown = self.clock() + self.ahead
            self.passed = max(shown, self.passed or shown)
        self.ahead = step

    @property
    def fair(self) -> bool:
        """Nothing that the function app needs is out of order, and no time is told twice."""
        needed = (Part.STORAGE, Part.QUEUES, Part.CATALOGUE, Part.APP)
        told_twice = self.passed is not None and self.clock() <= self.passed
        return not (self.ahead or told_twice or any(self.is_down(part) for part in needed))

    def before_call(self, part: Part) -> None:
        if self.is_down(part):
            self.fire(f"{part} was down")
            raise _ERRORS[part](f"{part} does not answer")

    def around_call_of_app(self) -> None:
        """After each call that the function app makes."""
        if self.fatal_call is not None:
            self.fatal_call -= 1
            if self.fatal_call <= 0:
                self.fatal_call = None
                self.fire("the function app died in the midst")
                raise Killed

    def lose_reply(self, part: Part) -> None:
        if self.lost_reply is not None:
            self.lost_reply -= 1
            if self.lost_reply <= 0:
                self.lost_reply = None
                self.fire("a reply was lost")
                raise _ERRORS[part](f"{part} did what was asked, and did not say so")


def exposed(port: Port, part: Part, weather: Weather, *, app: bool) -> Port:
    """The port as it is felt from the function app, or from a worker."""
    return cast("Port", _Exposed(port, part, weather, app=app))


class _Exposed:
    def __init__(self, port: object, part: Part, weather: Weather, *, app: bool) -> None:
        self._port, self._part, self._weather, self._app = port, part, weather, app

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._port, name)
        weather, part, app = self._weather, self._part, self._app

        @wraps(operation)
        def felt(*args: Any, **kwargs: Any) -> Any:
            weather.before_call(part)
            found = operation(*args, **kwargs)
            if app:
                weather.around_call_of_app()
                weather.lose_reply(part)
            return found

        setattr(self, name, felt)
        return felt
