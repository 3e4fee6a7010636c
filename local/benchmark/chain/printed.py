"""The chain's rows as a table for people, and what they come to."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from local.benchmark.chain.report import ChainReport, ChainRow, Step

_NUMBERS = ("wall s", "CPU s", "tool", "MiB", "stored MB", "fetched MB", "disk")


def print_chain(report: ChainReport, console: Console) -> None:
    for step in Step:
        rows = [row for row in report.rows if row.step is step]
        if rows:
            console.print(_table(step, rows))
    for tool, ratio in report.over_full.items():
        console.print(f"{tool}: 1 + {report.links} in {ratio:.2f} of the time of its full alone")
    for tool, ratio in report.over_peer.items():
        console.print(f"pgkeep: 1 + {report.links} in {ratio:.2f} of the time of {tool}")
    for row in report.rows:
        if row.combining_s is not None:
            console.print(f"{row.name}: of it pg_combinebackup {row.combining_s:.2f} s")
    servers = ", ".join(f"{tool} {version}" for tool, version in report.postgres.items())
    console.print(
        f"{report.size_bytes / 1e9:.2f} GB; disk = the most that lay there, of the result; "
        f"CPU s = tool + server + azurite; medians\nPostgreSQL: {servers}"
    )


def _table(step: Step, rows: list[ChainRow]) -> Table:
    """Without the columns that say nothing about this step."""
    table = Table(title=f"Chain: {step}", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    cells = [_cells(row) for row in rows]
    headers = [header for header in _NUMBERS if any(cell[header] for cell in cells)]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row, cell in zip(rows, cells, strict=True):
        table.add_row(row.tool, *(cell[header] for header in headers))
    return table


def _cells(row: ChainRow) -> dict[str, str]:
    return {
        "wall s": f"{row.wall_s:.2f}",
        "CPU s": f"{row.cpu_s:.1f}",
        "tool": f"{row.tool_cpu_s:.1f}",
        "MiB": f"{row.peak_rss_mib:.0f}",
        "stored MB": _megabytes(row.stored_bytes),
        "fetched MB": _megabytes(row.fetched_bytes),
        "disk": "" if row.disk is None else f"{row.disk:.2f}",
    }


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"
