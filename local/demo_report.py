"""The demo's report: one model, printed for people and written as JSON for programs."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table

from local.document_database.load import LoadedDatabase
from local.document_database.workload import Activity
from shared.domain.drill import DrillPhase, DrillVerdict
from shared.repository.documents import BackupDocument, DrillReport

_MB = 1_000_000
_BAR = 30


@dataclass(slots=True)
class Played:
    """What the demo has come to, so far; `reason` is why it went no further."""

    database: LoadedDatabase | None = None
    activity: Activity | None = None
    backup: BackupDocument | None = None
    catalogued: dict[str, Any] | None = None
    drill: DrillReport | None = None
    reason: str = "the demo did not come to a verdict"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class BackupSummary(Part):
    """Sizes in bytes; `ratio` is plain to stored; `mb_per_s` counts plain megabytes."""

    cluster: str
    label: str
    kind: str
    plain_bytes: int
    stored_bytes: int
    ratio: float
    seconds: float
    mb_per_s: float
    volumes: int
    page_checksum_failures: int
    committed: bool
    verified: bool
    proven: bool


class CheckSummary(Part):
    name: str
    outcome: str
    detail: str
    seconds: float


class TableSummary(Part):
    """Rows at the backup's start, at its end, and restored."""

    table: str
    verdict: str
    rows: tuple[int, int, int]
    sentence: str


class DrillSummary(Part):
    """`phases` in seconds, in the order in which they ran."""

    id: str
    label: str
    verdict: str
    reason: str
    rto_s: float
    phases: dict[str, float]
    restored_bytes: int
    restored_files: int
    postgres: str
    checks: tuple[CheckSummary, ...]
    tables: tuple[TableSummary, ...]


class DemoReport(Part):
    """`verdict` is "proven", or says why not. `rpo_s` stays null until WAL is archived."""

    verdict: str
    rto_s: float | None
    rpo_s: float | None
    seconds: float
    database_bytes: int
    documents: int
    transactions_meanwhile: int
    backups: tuple[BackupSummary, ...]
    drills: tuple[DrillSummary, ...]


def summarise(played: Played, seconds: float) -> DemoReport:
    database = played.database or LoadedDatabase(0, 0)
    drill = played.drill
    return DemoReport(
        verdict=_verdict(played),
        rto_s=None if drill is None else drill.rto_ms / 1000,
        rpo_s=None,
        seconds=round(seconds, 1),
        database_bytes=database.size,
        documents=database.documents,
        transactions_meanwhile=0 if played.activity is None else played.activity.transactions,
        backups=() if played.backup is None else (_backup(played.backup, played.catalogued),),
        drills=() if drill is None else (_drill(drill),),
    )


def print_report(console: Console, report: DemoReport) -> None:
    for backup in report.backups:
        console.print(_backup_table(report, backup))
    for drill in report.drills:
        console.print(_phase_table(drill))
        console.print(_check_table(drill))
        if drill.tables:
            console.print(_rows_table(drill))
    style = "bold green" if report.verdict == "proven" else "bold red"
    rto = "" if report.rto_s is None else f"  RTO {report.rto_s:.1f} s"
    console.print(f"[{style}]verdict: [/]", end="")
    console.print(f"{report.verdict}{rto}  ({report.seconds:.0f} s in all)", markup=False)


def _verdict(played: Played) -> str:
    """Proven is what drill and catalogue agree on; nothing else will do."""
    if played.drill is None or played.catalogued is None:
        return played.reason
    if played.drill.verdict is not DrillVerdict.PROVEN:
        return f"{played.drill.verdict.value}: {played.drill.reason}"
    return "proven" if played.catalogued["proven"] else f"not catalogued: {played.reason}"


def _backup(document: BackupDocument, catalogued: dict[str, Any] | None) -> BackupSummary:
    seconds = max(document.total_ms, 1) / 1000
    facts = catalogued or {}
    return BackupSummary(
        cluster=document.cluster,
        label=document.label,
        kind=document.kind.value,
        plain_bytes=document.plain_size,
        stored_bytes=document.stored_size,
        ratio=round(document.plain_size / max(document.stored_size, 1), 2),
        seconds=seconds,
        mb_per_s=round(document.plain_size / _MB / seconds, 1),
        volumes=len(document.volumes),
        page_checksum_failures=document.page_checksum_failures,
        committed=True,
        verified=bool(facts.get("verified")),
        proven=bool(facts.get("proven")),
    )


def _drill(report: DrillReport) -> DrillSummary:
    return DrillSummary(
        id=report.id,
        label=report.label,
        verdict=report.verdict.value,
        reason=report.reason,
        rto_s=report.rto_ms / 1000,
        phases=_in_order(report.phases_ms),
        restored_bytes=report.restored_bytes,
        restored_files=report.restored_files,
        postgres=report.postgres,
        checks=tuple(
            CheckSummary(
                name=check.name,
                outcome=check.outcome.value,
                detail=check.detail,
                seconds=round(check.seconds, 3),
            )
            for check in report.checks
        ),
        tables=tuple(
            TableSummary(
                table=table.table,
                verdict=table.kind.value,
                rows=table.rows,
                sentence=table.sentence,
            )
            for table in report.tables
        ),
    )


def _in_order(phases_ms: dict[str, int]) -> dict[str, float]:
    """Seconds, in the order in which phases run: signed documents sort their members by name."""
    known = {phase.value: index for index, phase in enumerate(DrillPhase)}
    names = sorted(phases_ms, key=lambda name: known.get(name, len(known)))
    return {name: phases_ms[name] / 1000 for name in names}


def _backup_table(report: DemoReport, backup: BackupSummary) -> Table:
    table = _table(f"Backup {backup.label}", "", "")
    facts = [name for name in ("committed", "verified", "proven") if getattr(backup, name)]
    for name, value in (
        ("database", f"{report.documents} documents, {report.database_bytes / _MB:.0f} MB"),
        ("changed meanwhile", f"{report.transactions_meanwhile} transactions"),
        ("read from PostgreSQL", f"{backup.plain_bytes / _MB:.1f} MB"),
        ("stored, encrypted", f"{backup.stored_bytes / _MB:.1f} MB in {backup.volumes} volume(s)"),
        ("ratio", f"{backup.ratio:.2f} : 1"),
        ("time and rate", f"{backup.seconds:.1f} s, {backup.mb_per_s:.0f} MB/s"),
        ("it is", ", ".join(facts)),
    ):
        table.add_row(name, value)
    return table


def _phase_table(drill: DrillSummary) -> Table:
    table = _table(f"Drill on {drill.postgres}: where the time went", "phase", "seconds", "")
    longest = max(drill.phases.values(), default=0) or 1
    for name, seconds in drill.phases.items():
        table.add_row(name, f"{seconds:7.2f}", "#" * round(seconds / longest * _BAR))
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
