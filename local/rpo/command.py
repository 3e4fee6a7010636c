"""`python -m local rpo`: its options, its runs, its table and `.benchmark/rpo.json`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from local.rpo.report import Loss, print_rpo
from local.rpo.series import Series, run_series

REPORT = Path(".benchmark/rpo.json")


def rpo(
    *,
    runs: Annotated[int, typer.Option(min=1, help="How often a server is lost.")] = 20,
    lose: Annotated[
        Loss, typer.Option(help="The server with its disk, or the receiver with it.")
    ] = Loss.SERVER,
    synchronous: Annotated[
        bool, typer.Option("--synchronous", help="Commits wait for the repository.")
    ] = False,
    flush_seconds: Annotated[
        float, typer.Option(min=0.1, help="As cluster.wal.flush_seconds.")
    ] = 10,
) -> None:
    """Kill a server, delete its disk, restore: how much is lost, and how long it takes."""
    console = Console(highlight=False)
    series = Series(runs, lose, synchronous, flush_seconds)
    report = run_series(series, lambda text: console.print(f"[dim]{text}[/]"))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    print_rpo(report, console)
    console.print(f"written to {REPORT}")
