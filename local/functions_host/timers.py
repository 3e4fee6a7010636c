"""Timer triggers: six-field NCRONTAB in UTC, one run at a time, missed ticks served once.

Like the real host, it remembers the last served tick of a timer that ticks more rarely than once
a minute (`useMonitor`), so that a tick missed while the host was down is made up for, past due.
"""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from azure.functions.timer import TimerRequest
from cronsim import CronSim, CronSimError

from local.functions_host.app_settings import AppSettings, resolve
from local.functions_host.indexing import AppRefused, HostedFunction
from local.functions_host.invocation import invoke

# Ticks closer together than this are not made up for after a restart (TimerTriggerAttribute).
MONITORED_FROM = timedelta(minutes=1)
# How late a run may be before it is told so.
PAST_DUE_AFTER = timedelta(seconds=1)
Clock = Callable[[], datetime]


def next_due(schedule: str, served: datetime, now: datetime) -> datetime:
    """The tick to run next: the first one after `served`, or, of several missed, the newest."""
    first = next(CronSim(schedule, served))
    if first > now:
        return first
    return next(CronSim(schedule, now + timedelta(microseconds=1), reverse=True))


@dataclass(slots=True)
class Timer:
    """State of one timer. `served` is the newest tick that was run, or the host's start."""

    function: HostedFunction
    schedule: str
    served: datetime
    monitored: bool
    run_now: bool = False
    running: Future[object] | None = None


class TimerTriggers:
    """All timers of an app; `run` is the body of their thread."""

    def __init__(
        self,
        functions: Sequence[HostedFunction],
        settings: AppSettings,
        state: Path,
        pool: Executor,
        clock: Clock,
    ) -> None:
        self._state = state / "timers.json"
        self._pool = pool
        self._clock = clock
        served = json.loads(self._state.read_text("utf-8")) if self._state.exists() else {}
        self._timers = [_timer(item, settings, served, clock()) for item in functions]

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self.serve()):
            pass

    def serve(self) -> float:
        """Start whatever is due; returns the seconds until there is something to do again."""
        now = self._clock()
        waits = [self._serve_one(timer, now) for timer in self._timers]
        return min(waits, default=60.0)

    def _serve_one(self, timer: Timer, now: datetime) -> float:
        if timer.running is not None and not timer.running.done():
            return 0.1
        tick = next_due(timer.schedule, timer.served, now)
        if tick > now and not timer.run_now:
            return min((tick - now).total_seconds(), 60.0)
        late = tick <= now and now - tick > PAST_DUE_AFTER
        timer.served, timer.run_now = min(tick, now), False
        self._remember()
        timer.running = self._pool.submit(invoke, timer.function, TimerRequest(past_due=late))
        return 0.1

    def _remember(self) -> None:
        served = {t.function.name: t.served.isoformat() for t in self._timers if t.monitored}
        draft = self._state.with_suffix(".new")
        draft.write_text(json.dumps(served), "utf-8")
        draft.replace(self._state)


def _timer(
    function: HostedFunction, settings: AppSettings, served: dict[str, str], now: datetime
) -> Timer:
    schedule = resolve(str(function.trigger["schedule"]), settings)
    monitored = _interval(schedule, function.name, now) > MONITORED_FROM
    monitored = bool(function.trigger.get("useMonitor", monitored))
    known = served.get(function.name) if monitored else None
    last = datetime.fromisoformat(known) if known else now
    return Timer(function, schedule, last, monitored, bool(function.trigger.get("runOnStartup")))


def _interval(schedule: str, name: str, now: datetime) -> timedelta:
    if len(schedule.split()) != 6:  # noqa: PLR2004 - second minute hour day month weekday
        raise AppRefused(f"function {name}: {schedule!r} has not six fields")
    try:
        ticks = CronSim(schedule, now)
        return -(next(ticks) - next(ticks))
    except (CronSimError, StopIteration) as error:
        raise AppRefused(f"function {name}: {schedule!r} never ticks: {error}") from None
