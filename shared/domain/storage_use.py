"""How much of a budget is used, how fast it grows, and when it will be full."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding

# A trend of fewer days is the rhythm of a week, seen from too near.
LEAST_SAMPLES: Final = 3
DAYS_CONSIDERED: Final = 28
_FAR_AWAY: Final = 3650  # days
_GB: Final = 1e9


@dataclass(frozen=True, slots=True, order=True)
class StorageSample:
    """Bytes used at the end of a day."""

    day: date
    used: int


def growth_per_day(samples: Sequence[StorageSample]) -> float | None:
    """Bytes, by least squares over the newest samples; None while there are too few of them."""
    newest = sorted(samples)[-DAYS_CONSIDERED:]
    if len({sample.day for sample in newest}) < LEAST_SAMPLES:
        return None
    days = [sample.day.toordinal() - newest[0].day.toordinal() for sample in newest]
    mean_day = sum(days) / len(days)
    mean_used = sum(sample.used for sample in newest) / len(newest)
    spread = sum((day - mean_day) ** 2 for day in days)
    together = sum(
        (day - mean_day) * (sample.used - mean_used)
        for day, sample in zip(days, newest, strict=True)
    )
    return together / spread


def days_to_full(used: int, budget: int, growth: float | None) -> float | None:
    """0 when it is full; None when that is ten years away or more, or nobody knows."""
    if used >= budget:
        return 0.0
    if growth is None or growth * _FAR_AWAY <= budget - used:
        return None
    return (budget - used) / growth


def storage_findings(
    used: int,
    budget: int | None,
    warn_ratio: float,
    samples: Sequence[StorageSample],
    now: datetime,
) -> Iterator[Finding]:
    """One, once more than `warn_ratio` of the budget is used."""
    if budget is None or used <= warn_ratio * budget:
        return
    growth = growth_per_day(samples)
    left = days_to_full(used, budget, growth)
    when = "" if left is None else f"; at this rate it is full in {left:.0f} days"
    fact = f"{used / budget:.0%} of the budget is used: {used / _GB:.1f} of {budget / _GB:.1f} GB"
    evidence = {
        "used_bytes": str(used),
        "budget_bytes": str(budget),
        "growth_bytes_per_day": "unknown" if growth is None else f"{growth:.0f}",
        "days_to_full": "unknown" if left is None else f"{left:.1f}",
    }
    yield Finding(FindingCode.STORAGE_NEARLY_FULL, "budget", now, fact + when, evidence)
