"""Percentiles of a few measured values, by nearest rank: always one of the values."""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Spread(BaseModel):
    """Half of the values are at most `p50`, 99 of a hundred at most `p99`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: float
    p99: float
    max: float


def spread(values: Sequence[float], digits: int = 3) -> Spread:
    """Of at least one value."""
    p50, p99 = (round(percentile(values, share), digits) for share in (0.5, 0.99))
    return Spread(p50=p50, p99=p99, max=round(max(values), digits))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]
