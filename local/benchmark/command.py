"""`python -m local benchmark`: its options, its table and `.benchmark/report.json`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from local.benchmark.contest import Contest, Subject, run_contest
from local.benchmark.printed import print_report

REPORT = Path(".benchmark/report.json")
_UNASKED = (Subject.BACKUP, Subject.WAL, Subject.CHAIN, Subject.CONTROL)
_BACKUP_GB, _CHAIN_GB = 1.5, 1.0


def benchmark(
    *,
    part: Annotated[
        list[Subject] | None, typer.Option(help="Only this part; default: all but rpo.")
    ] = None,
    size_gb: Annotated[
        float | None, typer.Option(min=0.2, help="Size of the cluster; default: 1.5, for chain 1.")
    ] = None,
    wal_segments: Annotated[int, typer.Option(min=4, help="WAL segments to move.")] = 64,
    rpo_runs: Annotated[int, typer.Option(min=1, help="Servers to lose, in part rpo.")] = 20,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each; the best counts.")] = 1,
    major: Annotated[
        int | None, typer.Option(help="PostgreSQL; default: the newest that all support.")
    ] = None,
    tool: Annotated[list[str] | None, typer.Option(help="Only these contenders.")] = None,
) -> None:
    """Measure backup, restore and WAL beside PostgreSQL's own tools and pgBackRest."""
    console = Console(highlight=False)
    contest = Contest(
        subjects=frozenset(part or _UNASKED),
        size_bytes=int((size_gb or _BACKUP_GB) * 1e9),
        wal_segments=wal_segments,
        chain_bytes=int((size_gb or _CHAIN_GB) * 1e9),
        rpo_runs=rpo_runs,
        runs=runs,
        major=major,
        tools=frozenset(tool or ()),
    )
    report = run_contest(contest, datetime.now(UTC), lambda text: console.print(f"[dim]{text}[/]"))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    print_report(report, console)
    console.print(f"written to {REPORT}")
