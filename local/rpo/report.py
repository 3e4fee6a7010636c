"""What the runs came to: one model for JSON and for the table."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from local.percentiles import Spread, spread


class Loss(StrEnum):
    """What dies: the server with its disk, or the WAL receiver at the same moment as well."""

    SERVER = "server"
    BOTH = "both"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(Part):
    """`rpo_s` is from the newest heartbeat in the restored copy to the kill.

    `lost_commits` counts heartbeats whose commit had returned and which the copy lacks.
    """

    lived_s: float
    rpo_s: float
    lost_commits: int
    rto_s: float


class RpoReport(Part):
    """A heartbeat every `beat_s`: no run can show less than the time since the last one."""

    date: AwareDatetime
    loss: Loss
    synchronous: bool
    flush_s: float
    beat_s: float
    postgres: str
    rpo_s: Spread
    rto_s: Spread
    runs: tuple[Run, ...]

    @property
    def lost_commits(self) -> int:
        return sum(run.lost_commits for run in self.runs)


def spreads(runs: Sequence[Run]) -> tuple[Spread, Spread]:
    """Of the RPO and of the RTO."""
    return spread([run.rpo_s for run in runs]), spread([run.rto_s for run in runs])


def print_rpo(report: RpoReport, console: Console) -> None:
    table = Table(title="Kill and restore", title_justify="left", box=SIMPLE_HEAD)
    for header in ("run", "lived s", "RPO s", "lost commits", "RTO s"):
        table.add_column(header, justify="right")
    for number, run in enumerate(report.runs, 1):
        numbers = (f"{run.lived_s:.1f}", f"{run.rpo_s:.3f}", str(run.lost_commits))
        table.add_row(str(number), *numbers, f"{run.rto_s:.1f}")
    console.print(table)
    mode = "synchronous" if report.synchronous else f"flush_seconds {report.flush_s:g}"
    console.print(
        f"lost: {report.loss}; {mode}; a commit every {report.beat_s:g} s; "
        f"PostgreSQL {report.postgres}"
    )
    rpo, rto = report.rpo_s, report.rto_s
    console.print(f"RPO  p50 {rpo.p50:.2f} s  p99 {rpo.p99:.2f} s  max {rpo.max:.2f} s")
    console.print(f"RTO  p50 {rto.p50:.2f} s  p99 {rto.p99:.2f} s  max {rto.max:.2f} s")
