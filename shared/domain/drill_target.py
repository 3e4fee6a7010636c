"""To which instant a drill recovers: the latest, one at random, or a given one."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from shared.domain.recovery_target import RecoveryTargetInvalid, parse_time

_RANDOM_BITS: Final = 64
_MICROSECOND: Final = timedelta(microseconds=1)


class AnyInstant(StrEnum):
    """LATEST is the end of the archived WAL, RANDOM one somewhere before it."""

    LATEST = "latest"
    RANDOM = "random"


class DrillLevel(StrEnum):
    """Which duty a drill fulfils: the weekly, monthly, quarterly or yearly one."""

    QUICK = "quick"
    EXTENDED = "extended"
    SIMULATION = "simulation"
    DISASTER = "disaster"


@dataclass(frozen=True, slots=True)
class GivenInstant:
    time: datetime

    def __str__(self) -> str:
        """As `parse_drill_target` reads it."""
        return f"{self.time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


DrillTarget = AnyInstant | GivenInstant


def parse_drill_target(text: str) -> DrillTarget:
    """`latest`, `random`, or a time with its offset. Raises RecoveryTargetInvalid."""
    if text in set(AnyInstant):
        return AnyInstant(text)
    try:
        return GivenInstant(parse_time(text))
    except RecoveryTargetInvalid as error:
        hint = error.advice if error.advice != error.hint else None
        raise RecoveryTargetInvalid(
            error.fact,
            hint=hint or "A drill goes to `latest`, `random`, or 2026-11-22T10:00:00+00:00.",
        ) from None


def instant_between(start: datetime, end: datetime, chance: bytes) -> datetime:
    """Uniformly in [start, end), by eight random bytes."""
    microseconds = (end - start) // _MICROSECOND
    return start + _MICROSECOND * (microseconds * int.from_bytes(chance) >> _RANDOM_BITS)
