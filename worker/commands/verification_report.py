"""The signed report of a verification: made of what was read, stored, and found again later."""

import logging
from collections.abc import Sequence
from uuid import uuid4

from shared.domain.cluster import ClusterName
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import StoredBackup
from shared.repository.documents import ChainLinkProof, VerificationReport
from shared.repository.proofs import remember
from worker.commands.part_proof import Tally
from worker.commands.services import Services, Stopwatch
from worker.commands.signed_reports import known_report, store_report


def report_of(
    services: Services,
    stored: StoredBackup,
    tally: Tally,
    watch: Stopwatch,
    *,
    report_id: str | None,
    chain: Sequence[ChainLinkProof] | None,
) -> VerificationReport:
    """`chain` None: the verification was not deep."""
    return VerificationReport(
        id=report_id or str(uuid4()),
        cluster=stored.document.cluster,
        label=stored.document.label,
        document_digest=stored.digest,
        deep=chain is not None,
        passed=not tally.findings,
        created_at=services.clocks.now(),
        total_ms=watch.total_ms,
        segments=tally.segments,
        files=tally.files,
        stored_bytes=tally.stored_bytes,
        plain_bytes=tally.plain_bytes,
        findings=tuple(tally.findings),
        chain=tuple(chain or ()),
    )


def keep_report(services: Services, report: VerificationReport) -> VerificationReport:
    """Store it, so that its backup leads to it; without a signer there is nothing to keep.

    Another worker with the same job may have been quicker: then theirs is the report.
    """
    log_event(
        "verification-reported",
        level=logging.INFO if report.passed else logging.ERROR,
        cluster=report.cluster,
        label=report.label,
        passed=report.passed,
        findings=len(report.findings),
    )
    if services.signer is None:
        return report
    name = layout.verification_report(ClusterName(report.cluster), report.id)
    kept = store_report(services, name, report)
    remember(services.reports, kept)
    return kept


def kept_report(
    services: Services, cluster: ClusterName, report_id: str
) -> VerificationReport | None:
    """What an earlier delivery of the same job has written; it may have died before the rest."""
    name = layout.verification_report(cluster, report_id)
    known = known_report(services, name, VerificationReport)
    if known is not None and services.signer is not None:
        remember(services.reports, known)
    return known
