"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

import pytest


class FixedClock:
    """Call it for the time; `monotonic` is for those that take seconds from anywhere."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self._started = now

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return (self.now - self._started).total_seconds()

    def advance(self, step: timedelta) -> datetime:
        """Move on (or back, as a clock that is set does); the new time."""
        self.now += step
        return self.now


@pytest.fixture
def fixed_clock() -> FixedClock:
    """At noon of a Sunday, UTC: far from midnight and from a change of daylight-saving time."""
    return FixedClock(datetime(2026, 11, 22, 12, tzinfo=UTC))
