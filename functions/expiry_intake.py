"""Taking in what a run of `expire` did: rows of deleted backups go, and a refusal is a finding."""

from typing import Final

from functions.finding_news import tell
from functions.wiring import Services
from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import Finding
from shared.event_log import log_event
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.layout import BackupRef
from shared.repository.reports import StoredReport

_OBJECT: Final = "retention"


def record_expiry(services: Services, stored: StoredReport, report: ExpiryReport) -> None:
    """Idempotent; an old report that comes again settles nothing anew."""
    cluster = ClusterName(report.cluster)
    new = services.catalogue.record(stored, services.clock())
    gone = {BackupRef(cluster, BackupLabel(one.label)): one.document_digest for one in report.went}
    services.catalogue.forget(gone)
    newest = services.catalogue.newest_expiry(cluster)
    if newest is not None and newest.id == report.id:
        _settle(services, cluster, report)
    log_event(
        "expiry-recorded",
        cluster=cluster,
        report=report.id,
        went=[one.label for one in report.went],
        freed_bytes=report.freed_bytes,
        refused=report.refused,
        new=new,
    )


def refused_before_it_began(services: Services, cluster: ClusterName, danger: Finding) -> None:
    """Closed as any refusal is: by the report of a run that refuses nothing."""
    fact = f"the scheduled run was not begun, because of {danger.code}: {danger.fact}"
    now, evidence = services.clock(), {"guard": danger.code.value, "object": danger.object}
    found = Finding(FindingCode.EXPIRE_REFUSED, _OBJECT, now, fact, evidence)
    tell(services, cluster, services.catalogue.open_findings(cluster, [found], now))


def _settle(services: Services, cluster: ClusterName, report: ExpiryReport) -> None:
    found = []
    if report.refused is not None:
        evidence = {"report": str(report.id)}
        at = report.created_at
        found = [Finding(FindingCode.EXPIRE_REFUSED, _OBJECT, at, report.refused, evidence)]
    scopes = {FindingScope.RETENTION}
    changes = services.catalogue.settle_findings(cluster, scopes, found, services.clock())
    tell(services, cluster, changes)
