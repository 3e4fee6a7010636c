"""The demo's report as one model: what it came to, its verdict, its times."""

from datetime import UTC

from pydantic import AwareDatetime, BaseModel, ConfigDict

from local.demo_guard import CODE, Caught, Rehearsal
from local.demo_rescue import Rescue
from local.demo_verdict import Played, verdict_of
from local.document_database import mistake
from local.document_database.load import LoadedDatabase
from shared.domain.drill import DrillPhase
from shared.repository.documents import BackupDocument, DrillReport

_MB = 1_000_000


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class BackupSummary(Part):
    """Sizes in bytes; `ratio` is plain to stored; `mb_per_s` counts plain megabytes.

    `of_full` is what was stored, divided by what the chain's full stored.
    """

    cluster: str
    label: str
    kind: str
    parent: str | None
    of_full: float
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


class GuardSummary(Part):
    """A planted lifecycle rule: what was said of it, and seconds until it was, and was closed."""

    code: str
    fact: str
    action: str
    labels: str
    opened_after_s: float
    closed_after_s: float


class RetentionSummary(Part):
    """A dry run of retention as if it were `at`: labels that would go, and why others stay."""

    at: AwareDatetime
    goes: tuple[str, ...]
    stays: int
    freed_bytes: int
    refused: str | None
    reasons: tuple[str, ...]


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
    guard: GuardSummary | None
    retention: RetentionSummary | None


def summarise(played: Played, seconds: float) -> DemoReport:
    database = played.database or LoadedDatabase(0, 0)
    last = played.drills[-1] if played.drills else None
    return DemoReport(
        verdict=verdict_of(played),
        rto_s=None if last is None else last.rto_ms / 1000,
        rpo_s=None if last is None else _seconds(last.rpo_ms),
        seconds=round(seconds, 1),
        database_bytes=database.size,
        documents=database.documents,
        transactions_meanwhile=0 if played.activity is None else played.activity.transactions,
        backups=tuple(_backup(document, played) for document in played.backups),
        drills=tuple(map(_drill, played.drills)),
        recovery=None if played.rescue is None else _recovery(played.rescue),
        guard=None if played.caught is None else _guard(played.caught),
        retention=None if played.rehearsal is None else _retention(played.rehearsal),
    )


def _guard(caught: Caught) -> GuardSummary:
    return GuardSummary(
        code=CODE,
        fact=caught.fact,
        action=caught.action,
        labels=caught.labels,
        opened_after_s=round(caught.opened_after_s, 1),
        closed_after_s=round(caught.closed_after_s, 1),
    )


def _retention(rehearsal: Rehearsal) -> RetentionSummary:
    return RetentionSummary(
        at=rehearsal.at,
        goes=rehearsal.goes,
        stays=rehearsal.stays,
        freed_bytes=rehearsal.freed_bytes,
        refused=rehearsal.refused,
        reasons=rehearsal.reasons,
    )


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


def _backup(document: BackupDocument, played: Played) -> BackupSummary:
    seconds = max(document.total_ms, 1) / 1000
    facts = played.catalogued.get(document.label, {})
    return BackupSummary(
        cluster=document.cluster,
        label=document.label,
        kind=document.kind.value,
        parent=None if document.parent is None else document.parent.label,
        of_full=round(document.stored_size / max(played.backups[0].stored_size, 1), 3),
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
