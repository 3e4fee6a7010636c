"""To which instant a drill recovers: the latest, one at random, or a given one."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from shared.domain.recovery_target import RecoveryTargetInvalid, parse_time

_RANDOM_BYTES: Final = 8
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


def chance_of(drill_id: str, what: Literal["backup", "instant"]) -> bytes:
    """Eight bytes that nobody chose and everybody can find again who has the drill's report."""
    return hashlib.sha256(f"{what} of drill {drill_id}".encode()).digest()[:_RANDOM_BYTES]


def one_of(count: int, chance: bytes) -> int:
    """Uniformly in [0, count), by eight random bytes."""
    return count * int.from_bytes(chance) >> 8 * _RANDOM_BYTES


def instant_between(start: datetime, end: datetime, chance: bytes) -> datetime:
    """Uniformly in [start, end), by eight random bytes."""
    return start + _MICROSECOND * one_of((end - start) // _MICROSECOND, chance)
