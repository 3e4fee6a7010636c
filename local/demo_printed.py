"""The demo's report as tables for people."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from local.demo_report import (
    BackupSummary,
    DemoReport,
    DrillSummary,
    GuardSummary,
    RecoverySummary,
    RetentionSummary,
)

_MB = 1_000_000
_BAR = 30
_SUFFIX = len("F-k3x7")


def print_report(console: Console, report: DemoReport) -> None:
    if report.backups:
        console.print(_database_table(report, report.backups[0]))
        console.print(_chain_table(report.backups))
    for drill in report.drills:
        console.print(_phase_table(drill))
        console.print(_check_table(drill))
        if drill.tables:
            console.print(_rows_table(drill))
    if report.recovery is not None:
        console.print(_recovery_table(report.recovery))
    if report.guard is not None:
        console.print(_guard_table(report.guard))
    if report.retention is not None:
        console.print(_retention_table(report.retention))
    style = "bold green" if report.verdict == "proven" else "bold red"
    rto = "" if report.rto_s is None else f"  RTO {report.rto_s:.1f} s"
    rpo = "" if report.rpo_s is None else f"  RPO {report.rpo_s:.1f} s"
    console.print(f"[{style}]verdict: [/]", end="")
    console.print(f"{report.verdict}{rto}{rpo}  ({report.seconds:.0f} s in all)", markup=False)


def _database_table(report: DemoReport, full: BackupSummary) -> Table:
    table = _table("Database", "", "")
    for name, value in (
        ("it holds", f"{report.documents} documents, {report.database_bytes / _MB:.0f} MB"),
        ("changed meanwhile", f"{report.transactions_meanwhile} transactions"),
        (
            "its full backup",
            f"{full.seconds:.1f} s, {full.mb_per_s:.0f} MB/s, {full.ratio:.2f} : 1",
        ),
    ):
        table.add_row(name, value)
    return table


def _chain_table(backups: Sequence[BackupSummary]) -> Table:
    """Each link with the end of its parent's label; sizes as they lie in the repository."""
    table = _table("Chain, encrypted", "backup", "parent", "MB", "of full", "s", "it is")
    for name in ("MB", "of full", "s"):
        next(column for column in table.columns if column.header == name).justify = "right"
    for backup in backups:
        facts = [name for name in ("verified", "proven") if getattr(backup, name)]
        table.add_row(
            backup.label,
            f"… {backup.parent[-_SUFFIX:]}" if backup.parent else "",
            f"{backup.stored_bytes / _MB:.1f}",
            f"{backup.of_full:.1%}",
            f"{backup.seconds:.1f}",
            ", ".join(facts) or "committed",
        )
    return table


def _recovery_table(recovery: RecoverySummary) -> Table:
    table = _table(f"Table {recovery.table}, emptied by mistake", "", "")
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in recovery.phases.items())
    for name, value in (
        ("emptied at", f"{recovery.emptied_at:%H:%M:%S.%f} UTC"),
        ("recovered to", f"{recovery.target:%H:%M:%S.%f} UTC"),
        ("rows lost, recovered", f"{recovery.rows_lost}, {recovery.rows_recovered}"),
        ("content", "equal (SHA-256 of all rows)" if recovery.equal else "NOT EQUAL"),
        ("time until it answered", f"{recovery.rto_s:.1f} s"),
        ("of it in seconds", phases),
    ):
        table.add_row(name, value)
    return table


def _guard_table(guard: GuardSummary) -> Table:
    table = _table("A lifecycle rule that would delete the chain's full backup", "", "")
    for name, value in (
        ("finding", guard.code),
        ("it says", guard.fact),
        ("would be lost", guard.labels),
        ("what to do", guard.action),
        ("opened after", f"{guard.opened_after_s:.1f} s"),
        ("closed after the rule had gone", f"{guard.closed_after_s:.1f} s"),
    ):
        table.add_row(name, value)
    return table


def _retention_table(retention: RetentionSummary) -> Table:
    table = _table(f"Retention, as if it were {retention.at:%F}: nothing is deleted", "", "")
    for name, value in (
        ("would go", ", ".join(retention.goes) or "nothing"),
        ("would stay", f"{retention.stays} backups"),
        ("because", "; ".join(retention.reasons)),
        ("would be freed", f"{retention.freed_bytes / _MB:.1f} MB"),
        ("refused", retention.refused or "no"),
    ):
        table.add_row(name, value)
    return table


def _phase_table(drill: DrillSummary) -> Table:
    target = (drill.target or "end of the backup").partition(" (")[0]
    table = _table(f"Drill to the {target}: where the time went", "phase", "seconds", "")
    longest = max(drill.phases.values(), default=0) or 1
    for name, seconds in drill.phases.items():
        table.add_row(name, f"{seconds:7.2f}", "#" * round(seconds / longest * _BAR))
    if drill.wal_segments:
        waited = f"{drill.wal_waited_s:7.2f}"
        replayed = f"{drill.replayed_bytes / _MB:.1f} MB in {drill.wal_segments} segments"
        table.add_row("waited for WAL", waited, replayed)
    return table


def _check_table(drill: DrillSummary) -> Table:
    table = _table("Checks", "check", "outcome", "detail")
    for check in drill.checks:
        table.add_row(check.name, check.outcome, check.detail)
    return table


def _rows_table(drill: DrillSummary) -> Table:
    table = _table("Rows", "table", "at start", "at end", "restored", "verdict")
    for item in drill.tables:
        table.add_row(item.table, *map(str, item.rows), item.verdict)
    return table


def _table(title: str, *headers: str) -> Table:
    table = Table(
        title=title,
        box=box.SIMPLE,
        title_justify="left",
        title_style="bold",
        show_header=any(headers),
        pad_edge=False,
    )
    for header in headers:
        table.add_column(header)
    return table
