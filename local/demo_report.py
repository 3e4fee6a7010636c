"""The demo's report as one model: what it came to, its verdict, its times."""

from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from local.demo_rescue import Rescue
from local.document_database import mistake
from local.document_database.load import LoadedDatabase
from local.document_database.workload import Activity
from shared.domain.drill import DrillPhase, DrillVerdict
from shared.repository.documents import BackupDocument, DrillReport

# One to the end of the backup, one to the end of the archived WAL.
DRILLS = 2
_MB = 1_000_000


@dataclass(slots=True)
class Played:
    """What the demo has come to, so far; `reason` is why it went no further."""

    database: LoadedDatabase | None = None
    activity: Activity | None = None
    backup: BackupDocument | None = None
    catalogued: dict[str, Any] | None = None
    drills: list[DrillReport] = field(default_factory=list)
    rescue: Rescue | None = None
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
    """`phases` in seconds, in the order in which they ran.

    `target` is null for a drill of the backup alone; `wal_waited_s` is what of the time PostgreSQL
    waited for WAL from the repository.
    """

    id: str
    label: str
    verdict: str
    reason: str
    target: str | None
    rto_s: float
    rpo_s: float | None
    phases: dict[str, float]
    replayed_bytes: int
    wal_segments: int
    wal_waited_s: float
    restored_bytes: int
    restored_files: int
    postgres: str
    checks: tuple[CheckSummary, ...]
    tables: tuple[TableSummary, ...]


class RecoverySummary(Part):
    """A table emptied by mistake, and what a recovery to `target`, just before, found in it.

    `rto_s` is from the command to a server that answers; `phases` are the command's own.
    """

    table: str
    emptied_at: AwareDatetime
    target: AwareDatetime
    rows_lost: int
    rows_recovered: int
    sha256_lost: str
    sha256_recovered: str
    equal: bool
    rto_s: float
    phases: dict[str, float]


class DemoReport(Part):
    """`verdict` is "proven", or says why not; `rto_s` and `rpo_s` are those of the last drill."""

    verdict: str
    rto_s: float | None
    rpo_s: float | None
    seconds: float
    database_bytes: int
    documents: int
    transactions_meanwhile: int
    backups: tuple[BackupSummary, ...]
    drills: tuple[DrillSummary, ...]
    recovery: RecoverySummary | None


def summarise(played: Played, seconds: float) -> DemoReport:
    database = played.database or LoadedDatabase(0, 0)
    last = played.drills[-1] if played.drills else None
    return DemoReport(
        verdict=_verdict(played),
        rto_s=None if last is None else last.rto_ms / 1000,
        rpo_s=None if last is None else _seconds(last.rpo_ms),
        seconds=round(seconds, 1),
        database_bytes=database.size,
        documents=database.documents,
        transactions_meanwhile=0 if played.activity is None else played.activity.transactions,
        backups=() if played.backup is None else (_backup(played.backup, played.catalogued),),
        drills=tuple(map(_drill, played.drills)),
        recovery=None if played.rescue is None else _recovery(played.rescue),
    )


def _verdict(played: Played) -> str:
    """Proven: both drills say so, the catalogue agrees, and not a row of the mistake is missing."""
    for drill in played.drills:
        if drill.verdict is not DrillVerdict.PROVEN:
            return f"{drill.verdict.value}: {drill.reason}"
    if played.rescue is not None and not played.rescue.equal:
        found, lost = played.rescue.found.rows, played.rescue.mistake.lost.rows
        return f"not recovered: {found} rows found, {lost} were lost, or not the same ones"
    if len(played.drills) < DRILLS or played.rescue is None or played.catalogued is None:
        return played.reason
    return "proven" if played.catalogued["proven"] else f"not catalogued: {played.reason}"


def _recovery(rescue: Rescue) -> RecoverySummary:
    return RecoverySummary(
        table=mistake.TABLE,
        emptied_at=rescue.mistake.at.astimezone(UTC),
        target=rescue.target,
        rows_lost=rescue.mistake.lost.rows,
        rows_recovered=rescue.found.rows,
        sha256_lost=rescue.mistake.lost.sha256,
        sha256_recovered=rescue.found.sha256,
        equal=rescue.equal,
        rto_s=round(rescue.rto_s, 3),
        phases={name: ms / 1000 for name, ms in rescue.phases_ms.items()},
    )


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
        target=report.target,
        rto_s=report.rto_ms / 1000,
        rpo_s=_seconds(report.rpo_ms),
        phases=_in_order(report.phases_ms),
        replayed_bytes=report.replayed_bytes,
        wal_segments=report.wal_segments,
        wal_waited_s=report.wal_waited_ms / 1000,
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


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _in_order(phases_ms: dict[str, int]) -> dict[str, float]:
    """Seconds, in the order in which phases run: signed documents sort their members by name."""
    known = {phase.value: index for index, phase in enumerate(DrillPhase)}
    names = sorted(phases_ms, key=lambda name: known.get(name, len(known)))
    return {name: phases_ms[name] / 1000 for name in names}
