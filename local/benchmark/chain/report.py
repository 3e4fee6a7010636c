"""What backups and restores of a chain came to: rows of the benchmark's report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from pydantic import BaseModel, ConfigDict

from local.benchmark.measure import TOOL, Usage

LINKS = 6
_DIGITS = 3


class Step(StrEnum):
    FULL = "full backup"
    ONE_PERCENT = "incremental, 1 % changed"
    TEN_PERCENT = "incremental, 10 % changed"
    SYNTHETIC = "synthetic full of 1 + 6"
    RESTORE_FULL = "restore of the full"
    RESTORE_CHAIN = "restore of 1 + 6"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Of a backup: what it stored. Of a restore: what it took of the disk and the network.

    `disk_peak_bytes` includes the result, `result_bytes`. `combining_s` is what of the time
    pg_combinebackup took, where it takes part.
    """

    usage: Usage
    stored_bytes: int | None = None
    disk_peak_bytes: int | None = None
    result_bytes: int | None = None
    fetched_bytes: int | None = None
    combining_s: float | None = None


Key = tuple[str, Step]
"""A tool and what it did."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChainRow(Part):
    """Medians of all runs but `peak_rss_mib`, the largest; `walls_s` has them all, in order.

    `disk` is the most that lay on the disk at one time, divided by the result.
    """

    name: str
    tool: str
    step: Step
    wall_s: float
    walls_s: tuple[float, ...]
    cpu_s: float
    tool_cpu_s: float
    foreign_cpu_s: float
    peak_rss_mib: float
    stored_bytes: int | None = None
    fetched_bytes: int | None = None
    disk: float | None = None
    combining_s: float | None = None


class ChainReport(Part):
    """`over_full`: by tool, what a restore of the chain takes of the time of its full's alone.

    `over_peer`: by peer, what ours takes of the peer's time for the same chain. Both are medians
    of ratios within one round of restores. `size_bytes` is the cluster's at the full backup;
    `postgres` the server's version by tool.
    """

    size_bytes: int
    links: int
    postgres: dict[str, str]
    rows: tuple[ChainRow, ...]
    over_full: dict[str, float]
    over_peer: dict[str, float]


def chain_report(
    size_bytes: int, measured: Mapping[Key, Sequence[Measured]], postgres: Mapping[str, str]
) -> ChainReport:
    """The first tool in `postgres` is the one that is compared with the others."""
    own = next(iter(postgres))
    rows = tuple(_row(key, runs) for key, runs in measured.items())
    walls = {(row.tool, row.step): row.walls_s for row in rows}
    chains = {tool: found for (tool, step), found in walls.items() if step is Step.RESTORE_CHAIN}
    fulls = {tool: found for (tool, step), found in walls.items() if step is Step.RESTORE_FULL}
    return ChainReport(
        size_bytes=size_bytes,
        links=LINKS,
        postgres=dict(postgres),
        rows=rows,
        over_full={tool: _ratio(chains[tool], fulls[tool]) for tool in chains if tool in fulls},
        over_peer={
            tool: _ratio(chains[own], found)
            for tool, found in chains.items()
            if tool != own and own in chains
        },
    )


def _row(key: Key, runs: Sequence[Measured]) -> ChainRow:
    tool, step = key
    usages = [run.usage for run in runs]
    return ChainRow(
        name=f"{tool}: {step}",
        tool=tool,
        step=step,
        wall_s=_median(usage.wall_s for usage in usages),
        walls_s=tuple(round(usage.wall_s, _DIGITS) for usage in usages),
        cpu_s=_median(usage.total_cpu_s for usage in usages),
        tool_cpu_s=_median(usage.cpu_s[TOOL] for usage in usages),
        foreign_cpu_s=_median(usage.foreign_cpu_s for usage in usages),
        peak_rss_mib=round(max(usage.peak_rss_mib for usage in usages), 1),
        stored_bytes=_middle(run.stored_bytes for run in runs),
        fetched_bytes=_middle(run.fetched_bytes for run in runs),
        disk=_disk(runs),
        combining_s=_part(run.combining_s for run in runs),
    )


def _disk(runs: Iterable[Measured]) -> float | None:
    """The worst run's: a disk that is too small once is too small."""
    found = [
        run.disk_peak_bytes / run.result_bytes
        for run in runs
        if run.disk_peak_bytes is not None and run.result_bytes
    ]
    return round(max(found), _DIGITS) if found else None


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return _median(mine / other for mine, other in zip(ours, theirs, strict=True))


def _median(values: Iterable[float]) -> float:
    return round(median(values), _DIGITS)


def _part(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _median(known) if known else None


def _middle(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(median(known)) if known else None
