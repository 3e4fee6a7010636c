"""The report as a table for people."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from local.benchmark.chain.printed import print_chain
from local.benchmark.control.printed import print_control
from local.benchmark.report import Operation, Report, Row
from local.benchmark.wal.report import WalOperation, WalRow
from local.rpo.report import print_rpo

_NUMBERS = ("wall s", "CPU s", "tool", "server", "azurite", "MiB", "MB/s", "stored")
_PARTIES = ("tool", "postgres", "azurite")


def print_report(report: Report, console: Console) -> None:
    for operation in Operation:
        rows = [row for row in report.rows if row.operation is operation]
        if rows:
            console.print(_table(operation, rows))
    if report.rows:
        _print_ratios(report, console)
    if report.wal:
        _print_wal(report.wal, console)
    if report.chain is not None:
        print_chain(report.chain, console)
    if report.control:
        print_control(report.control, console)
    if report.rpo is not None:
        print_rpo(report.rpo, console)
    _print_circumstances(report, console)


def _print_ratios(report: Report, console: Console) -> None:
    for row in report.rows:
        for peer, ratio in row.ratios.items():
            if row.tool == "pgkeep":
                console.print(
                    f"{row.name}: {ratio.wall:.2f} of the time and {ratio.cpu:.2f} of the CPU "
                    f"of {peer}"
                )
    console.print(
        f"CPU s = tool + server + azurite; MiB = peak of the tool; stored in MB\n"
        f"{report.size_bytes / 1e9:.2f} GB"
    )


def _print_wal(rows: tuple[WalRow, ...], console: Console) -> None:
    for operation in WalOperation:
        own = [row for row in rows if row.operation is operation]
        if own:
            console.print(_wal_table(operation, own))
    for row in rows:
        for peer, ratio in row.ratios.items():
            if row.tool == "pgkeep":
                p99 = "" if ratio.p99 is None else f", p99 {ratio.p99:.2f} of it"
                console.print(f"{row.name}: {ratio.wall:.2f} of the time of {peer}{p99}")
    console.print(
        f"{rows[0].segments} segments of 16 MiB; CPU s = the whole machine; behind = when the "
        "server stopped writing; waits = share of the replay"
    )


def _wal_table(operation: WalOperation, rows: list[WalRow]) -> Table:
    """Without the columns that say nothing about this operation."""
    table = Table(title=f"WAL: {operation}", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    cells = [_wal_cells(row) for row in rows]
    headers = [header for header in cells[0] if any(cell[header] for cell in cells)]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row, cell in zip(rows, cells, strict=True):
        table.add_row(row.tool, *(cell[header] for header in headers))
    return table


def _wal_cells(row: WalRow) -> dict[str, str]:
    delay = row.delay_ms
    return {
        "segments/s": f"{row.segments_per_s:.1f}",
        "wall s": f"{row.wall_s:.2f}",
        "CPU s": f"{row.machine_cpu_s:.1f}",
        "p50 ms": "" if delay is None else f"{delay.p50:.0f}",
        "p99 ms": "" if delay is None else f"{delay.p99:.0f}",
        "max ms": "" if delay is None else f"{delay.max:.0f}",
        "behind MB": "" if row.behind_bytes is None else f"{row.behind_bytes / 1e6:.0f}",
        "waits": "" if row.waiting_share is None else f"{row.waiting_share:.1%}",
        "failures": str(row.failures or ""),
        "stored MB": "" if row.stored_bytes is None else f"{row.stored_bytes / 1e6:.0f}",
    }


def _print_circumstances(report: Report, console: Console) -> None:
    machine = report.machine
    console.print(
        f"best of {report.runs}; {machine.processor}, "
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
