"""How far apart a schedule's backups come."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from heapq import merge
from itertools import islice, pairwise, takewhile

from cronsim import CronSim

_HORIZON = timedelta(days=366)  # every rhythm of a calendar's year
_TICKS = 20_000  # two weeks of one a minute: more of them differ no more


def longest_gap(crons: Iterable[str], now: datetime) -> timedelta:
    """Between two ticks, of whichever of the expressions, in the year after `now`.

    `now` must carry UTC. Without two ticks in that year: the year.
    """
    ticks = merge(*(_ticks(cron, now) for cron in crons))
    gaps = (later - earlier for earlier, later in pairwise(islice(ticks, _TICKS)))
    return max(gaps, default=_HORIZON)


def _ticks(cron: str, now: datetime) -> Iterator[datetime]:
    return takewhile(lambda tick: tick < now + _HORIZON, CronSim(cron, now))
