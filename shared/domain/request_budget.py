"""How many requests a minute: a bucket that drips, kept as one instant.

The instant is when the bucket will be empty again. A request moves it on by its share of a minute;
one that would move it beyond the next minute is too many. So a burst may be as large as the budget
of a minute, and what follows comes at its pace. (Known as the generic cell rate algorithm.)
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.errors import RequestsTooMany

_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Budget:
    """So many requests in each minute; `owner` tells budgets apart, and callers what is short.

    The request at hand weighs as much as `weight` ordinary ones, but never more than there are.
    """

    owner: str
    per_minute: int
    weight: int = 1

    @property
    def cost(self) -> timedelta:
        """Of the request. Rounded down, so that the last one of a minute still fits."""
        return _MINUTE * min(self.weight, self.per_minute) // self.per_minute

    def spent(self, whole_at: datetime, now: datetime) -> datetime:
        """When all is whole again after one request more."""
        return max(whole_at, now) + self.cost

    def demand_room(self, spent: datetime, now: datetime) -> None:
        """Raises RequestsTooMany unless a minute from now is enough."""
        excess = spent - now - _MINUTE
        if excess > timedelta():
            fact = f"more than {self.per_minute} requests a minute: {self.owner}"
            raise RequestsTooMany(fact, wait_s=math.ceil(excess.total_seconds()))
