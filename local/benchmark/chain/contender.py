"""What a contender is: backups that it has taken of one story, and restores to run again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from local.benchmark.chain.changes import change, freeze
from local.benchmark.chain.report import LINKS, Key, Measured, Step
from local.benchmark.measure import Usage
from local.postgres_server import PostgresServer

_SMALL, _LARGE = 1, 10  # per cent of the rows


@dataclass(frozen=True, slots=True)
class Contender:
    """Its backups are in its repository; a restore leaves nothing behind."""

    backups: Sequence[tuple[Key, Measured]]
    restores: Mapping[Key, Callable[[], Measured]]


def story(
    source: PostgresServer, back_up: Callable[[Step], Measured]
) -> Iterator[tuple[Step, Measured]]:
    """The same for everybody: a full, six small changes and one large one, a backup after each."""
    freeze(source)
    yield Step.FULL, back_up(Step.FULL)
    for number in range(LINKS):
        change(source, _SMALL, number)
        yield Step.ONE_PERCENT, back_up(Step.ONE_PERCENT)
    change(source, _LARGE, LINKS)
    yield Step.TEN_PERCENT, back_up(Step.TEN_PERCENT)


def together(usages: Sequence[Usage]) -> Usage:
    """Of commands that ran one after the other."""
    return reduce(_added, usages)


def _added(one: Usage, other: Usage) -> Usage:
    parties = one.cpu_s.keys() | other.cpu_s.keys()
    return Usage(
        wall_s=one.wall_s + other.wall_s,
        cpu_s={name: one.cpu_s.get(name, 0) + other.cpu_s.get(name, 0) for name in parties},
        peak_rss_mib=max(one.peak_rss_mib, other.peak_rss_mib),
        foreign_cpu_s=one.foreign_cpu_s + other.foreign_cpu_s,
    )
