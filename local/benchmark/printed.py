"""The report as a table for people."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from local.benchmark.report import Operation, Report, Row

_NUMBERS = ("wall s", "CPU s", "tool", "server", "azurite", "MiB", "MB/s", "stored")
_PARTIES = ("tool", "postgres", "azurite")


def print_report(report: Report, console: Console) -> None:
    for operation in Operation:
        rows = [row for row in report.rows if row.operation is operation]
        if rows:
            console.print(_table(operation, rows))
    for row in report.rows:
        for peer, ratio in row.ratios.items():
            if row.tool == "pgkeep":
                console.print(
                    f"{row.name}: {ratio.wall:.2f} of the time and {ratio.cpu:.2f} of the CPU "
                    f"of {peer}"
                )
    machine = report.machine
    console.print(
        f"CPU s = tool + server + azurite; MiB = peak of the tool; stored in MB\n"
        f"{report.size_bytes / 1e9:.2f} GB, best of {report.runs}; {machine.processor}, "
        f"{machine.cores} cores, load {machine.load_before} before"
    )
    console.print(", ".join(f"{name} {version}" for name, version in report.versions.items()))
    for remark in report.remarks:
        console.print(f"note: {remark}")


def _table(operation: Operation, rows: list[Row]) -> Table:
    table = Table(title=operation.capitalize(), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for number in _NUMBERS:
        table.add_column(number, justify="right", no_wrap=True)
    for row in rows:
        parties = (f"{row.cpu_by_s.get(party, 0):.1f}" for party in _PARTIES)
        stored = "" if row.stored_bytes is None else f"{row.stored_bytes / 1e6:.0f}"
        table.add_row(
            row.tool,
            f"{row.wall_s:.2f}",
            f"{row.cpu_s:.1f}",
            *parties,
            f"{row.peak_rss_mib:.0f}",
            f"{row.mb_per_s:.0f}",
            stored,
        )
    return table
