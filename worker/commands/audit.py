"""`pgkeep audit`: the signed report of a period: what was promised, done and proven.

Everything comes from signed documents in the repository; what cannot be believed is named as such.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from shared.domain.audit import Duty, duties
from shared.domain.cluster import cluster_name
from shared.errors import BlobAlreadyExists, InvalidInput
from shared.repository import layout
from shared.repository.audit_report import (
    AuditedBackup,
    AuditedDuty,
    AuditedEvidence,
    AuditedObjectives,
    AuditedTrail,
    AuditReport,
)
from shared.repository.audit_trail import verify_trail
from shared.repository.backups import StoredBackup
from shared.repository.documents import DrillReport, VerificationReport
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.reports import StoredReport
from shared.repository.signatures import MAX_DOCUMENT, read_signed, sign_document
from shared.settings import ClusterSettings
from shared.version import VERSION
from worker.commands.audit_evidence import done, gather
from worker.commands.cluster_identity import signer_of
from worker.commands.services import Services

_NAMED_TICKS: Final = 100


class AuditPeriodInvalid(InvalidInput):
    """A period that is empty, or not over."""

    code = "audit-period-invalid"
    hint = "Give --since before --until, and --until no later than now."


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """The period [since, until). `audit_id` makes the report idempotent."""

    since: datetime
    until: datetime
    audit_id: UUID | None = None


def audit(services: Services, cluster: ClusterSettings, request: AuditRequest) -> AuditReport:
    """Write the report, or give back the one of this id.

    Raises AuditPeriodInvalid, SigningKeyMissing and what storage raises.
    """
    if not request.since < request.until <= services.clocks.now():
        raise AuditPeriodInvalid(f"the period from {request.since} to {request.until}")
    signer, name = signer_of(services), cluster_name(cluster.name)
    report_id = str(request.audit_id or UUID(bytes=services.random(16), version=4))
    report = _compose(services, cluster, request, report_id)
    blob = layout.audit_report(name, report_id)
    try:
        services.store.create(blob, sign_document(report, signer))
    except BlobAlreadyExists:  # another delivery of the job was first
        raw = services.store.read(blob, limit=MAX_DOCUMENT)
        return read_signed(raw, AuditReport, services.pinned)
    return report


def _compose(
    services: Services, cluster: ClusterSettings, request: AuditRequest, report_id: str
) -> AuditReport:
    evidence = gather(services, cluster_name(cluster.name), request.since, request.until)
    what = done(evidence)
    promised = [(kind, cron) for kind, cron in cluster.schedule if kind in what]
    kept = duties(promised, what, request.since, request.until)
    objectives = _objectives(cluster, evidence.reports)
    listed = tuple(sorted(map(_listed, evidence.reports), key=lambda one: one.created_at))
    trail = _trail(services)
    failed = any(one.verdict in {"damaged", "failed"} for one in listed)
    return AuditReport(
        id=report_id,
        cluster=cluster.name,
        since=request.since,
        until=request.until,
        created_at=services.clocks.now(),
        passed=not (failed or evidence.disbelieved or trail.breaks or _broken(objectives))
        and not any(duty.missed for duty in kept),
        duties=tuple(map(_duty, kept)),
        objectives=objectives,
        backups=tuple(_backup(stored, evidence.reports) for stored in evidence.backups),
        evidence=listed,
        trail=trail,
        disbelieved=tuple(evidence.disbelieved),
        tool=f"pgkeep {VERSION}",
    )


def _trail(services: Services) -> AuditedTrail:
    found = verify_trail(services.store)
    breaks = tuple(f"event {one.number}: {one.fact}" for one in found.breaks)
    return AuditedTrail(events=found.events, newest=found.newest, breaks=breaks)


def _duty(duty: Duty) -> AuditedDuty:
    return AuditedDuty(
        kind=duty.kind,
        cron=duty.cron,
        expected=duty.expected,
        met=duty.met,
        open=duty.open,
        missed_count=len(duty.missed),
        missed=duty.missed[:_NAMED_TICKS],
    )


def _backup(stored: StoredBackup, reports: Iterable[StoredReport]) -> AuditedBackup:
    verified, drilled = None, None
    for report in sorted((one.report for one in reports), key=lambda one: one.created_at):
        match report:
            case VerificationReport(document_digest=stored.digest):
                verified = report.passed
            case DrillReport(document_digest=stored.digest):
                drilled = report.verdict.value
    return AuditedBackup(
        label=stored.document.label,
        digest=stored.digest,
        committed_at=stored.document.created_at,
        verified=verified,
        drill=drilled,
    )


def _listed(stored: StoredReport) -> AuditedEvidence:
    report = stored.report
    if isinstance(report, DrillReport):
        return AuditedEvidence(
            kind="drill",
            id=report.id,
            digest=stored.digest,
            label=report.label,
            created_at=report.created_at,
            verdict=report.verdict.value,
            rto_ms=report.rto_ms,
            rpo_ms=report.rpo_ms,
        )
    if isinstance(report, ExpiryReport):
        return AuditedEvidence(
            kind="expiry",
            id=str(report.id),
            digest=stored.digest,
            created_at=report.created_at,
            verdict="done",
        )
    return AuditedEvidence(
        kind="verification",
        id=report.id,
        digest=stored.digest,
        label=report.label,
        created_at=report.created_at,
        verdict="intact" if report.passed else "damaged",
    )


def _objectives(cluster: ClusterSettings, reports: Iterable[StoredReport]) -> AuditedObjectives:
    drills = [one.report for one in reports if isinstance(one.report, DrillReport)]
    promised = cluster.objectives
    return AuditedObjectives(
        rto_ms=promised.rto_minutes * 60_000,
        worst_rto_ms=max((drill.rto_ms for drill in drills), default=None),
        rpo_ms=promised.rpo_seconds * 1000,
        worst_rpo_ms=max(
            (drill.rpo_ms for drill in drills if drill.rpo_ms is not None), default=None
        ),
    )


def _broken(objectives: AuditedObjectives) -> bool:
    rto, rpo = objectives.worst_rto_ms or 0, objectives.worst_rpo_ms or 0
    return rto > objectives.rto_ms or rpo > objectives.rpo_ms
