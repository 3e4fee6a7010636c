"""The control part as a table for people."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from local.benchmark.control.report import ControlRow


def print_control(rows: tuple[ControlRow, ...], console: Console) -> None:
    table = Table("", "count", "seconds", "per minute", "aim", box=SIMPLE_HEAD, title="control")
    for column in table.columns[1:4]:
        column.justify = "right"
    for row in rows:
        rate = f"{row.per_minute:,.0f}" if row.count else ""
        table.add_row(row.name, f"{row.count:,}", f"{row.seconds:.2f}", rate, row.aim or "")
    console.print(table)
