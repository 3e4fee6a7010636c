"""The benchmark's result: one model for `.benchmark/report.json` and for the table."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from local.benchmark.chain.report import ChainReport, ChainRow
from local.benchmark.control.report import ControlRow
from local.benchmark.measure import Usage
from local.benchmark.wal.report import WalRow
from local.rpo.report import RpoReport

_DIGITS = 3
_DISTURBED = 0.05


class Operation(StrEnum):
    BACKUP = "backup"
    RESTORE = "restore"
    COMPRESSION = "compression"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ratio(Part):
    """Ours divided by the peer's: below 1 we are faster, or cheaper."""

    wall: float
    cpu: float


class Row(Part):
    """One contender doing one thing. Seconds, MiB, and 10^6 bytes of the cluster per second."""

    name: str
    tool: str
    operation: Operation
    wall_s: float
    cpu_s: float
    cpu_by_s: dict[str, float]
    peak_rss_mib: float
    mb_per_s: float
    foreign_cpu_s: float
    stored_bytes: int | None = None
    ratios: dict[str, Ratio] = {}


class Machine(Part):
    processor: str
    cores: int
    memory_gib: float
    system: str
    load_before: float


class Report(Part):
    """`rows` are backups and restores. A part that was not asked for is empty, or null.

    `remarks` say what was left out, and what a reader must know to judge the rows.
    """

    date: AwareDatetime
    machine: Machine
    versions: dict[str, str]
    size_bytes: int
    runs: int
    rows: tuple[Row, ...]
    wal: tuple[WalRow, ...] = ()
    chain: ChainReport | None = None
    control: tuple[ControlRow, ...] = ()
    rpo: RpoReport | None = None
    remarks: tuple[str, ...]

    def compared(self) -> Self:
        """With the ratios of every row to its peers: the other tools doing the same thing."""
        rows = tuple(
            row.model_copy(update={"ratios": _ratios(row, self.rows)}) for row in self.rows
        )
        return self.model_copy(update={"rows": rows})


def disturbed(rows: Iterable[Row | ChainRow]) -> list[str]:
    """Names of rows during which other programs took more than a twentieth of what was used."""
    return [row.name for row in rows if row.foreign_cpu_s > _DISTURBED * row.cpu_s]


def make_row(
    tool: str,
    operation: Operation,
    usages: Sequence[Usage],
    size_bytes: int,
    *,
    stored_bytes: int | None = None,
) -> Row:
    """The best of several runs: what disturbs a run only ever makes it longer."""
    best = min(usages, key=lambda usage: usage.wall_s)
    return Row(
        name=f"{tool} {operation}",
        tool=tool,
        operation=operation,
        wall_s=_rounded(best.wall_s),
        cpu_s=_rounded(best.total_cpu_s),
        cpu_by_s={party: _rounded(seconds) for party, seconds in best.cpu_s.items()},
        peak_rss_mib=_rounded(max(usage.peak_rss_mib for usage in usages)),
        mb_per_s=_rounded(size_bytes / 1e6 / best.wall_s),
        foreign_cpu_s=_rounded(best.foreign_cpu_s),
        stored_bytes=stored_bytes,
    )


def _ratios(row: Row, rows: Iterable[Row]) -> dict[str, Ratio]:
    return {
        peer.tool: Ratio(
            wall=_rounded(row.wall_s / peer.wall_s), cpu=_rounded(row.cpu_s / peer.cpu_s)
        )
        for peer in rows
        if peer.name != row.name and _comparable(row.operation, peer.operation)
    }


def _comparable(ours: Operation, theirs: Operation) -> bool:
    """Compression alone is the bound of a backup: both take the same bytes through zstd."""
    return ours is theirs or (ours, theirs) == (Operation.BACKUP, Operation.COMPRESSION)


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
