"""Taking signed documents into the catalogue, whoever noticed them: an event or the reconciler.

What cannot be believed is set aside for a person, once, and never retried by the host. What may
get better (storage or catalogue silent, blob not yet listed) is raised, so that the host retries.
"""

import logging
from collections.abc import Callable
from functools import partial
from uuid import UUID, uuid5

from functions.expiry_intake import record_expiry
from functions.guard_watch import guard_backup
from functions.outbox import send_requested
from functions.wiring import Services
from shared.domain.cluster import ClusterName
from shared.errors import (
    BackupConflict,
    ClusterConflict,
    MessageInvalid,
    PgkeepError,
    ReportConflict,
)
from shared.event_log import log_event
from shared.jobs.messages import VerifyJob
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.repository.belief import is_unbelievable
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport, VerificationReport
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.header_verification import verify_header
from shared.repository.layout import BackupRef
from shared.repository.reports import read_report
from shared.repository.tombstones import tombstone_of

_VERIFY_JOBS = UUID("0b6f3f0e-6c55-5a43-9a52-7d1f0c9a4be2")


def take_in_backup(services: Services, name: BlobName) -> None:
    """Verify the header of a committed backup, record it, and ask for its deep verification."""
    _believe(services, name, lambda: _record_backup(services, name))
    send_requested(services)


def take_in_report(services: Services, name: BlobName) -> None:
    """Record a signed report: of a verification with those it made of ancestors, of a drill, or of
    a run of `expire` with what follows from it.
    """
    _believe(services, name, lambda: _record_report(services, name))


def message_text(body: bytes) -> str:
    """Raises MessageInvalid."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MessageInvalid(f"message is not utf-8 at byte {error.start}") from None


def request_verification(services: Services, ref: BackupRef, digest: str) -> UUID:
    """One job per document, however often it is asked for. `send_requested` sends it."""
    job_id = uuid5(_VERIFY_JOBS, digest)
    job = VerifyJob(
        job_id=job_id, cluster=ref.cluster, label=ref.label.text, document_digest=digest
    )
    services.catalogue.request(job, services.clock())
    return job_id


def _record_backup(services: Services, name: BlobName) -> None:
    ref = layout.backup_of_document(name)
    try:
        verification = verify_header(services.store, ref, services.pinned)
    except BackupNotFound:
        if tombstone_of(services.store, ref, services.pinned) is None:
            raise  # it may not be listed yet: the host tries again
        log_event("backup-expired-already", cluster=ref.cluster, label=ref.label)
        return
    services.catalogue.record(verification.cluster, services.clock())
    new = services.catalogue.record(verification, services.clock())
    request_verification(services, ref, verification.backup.digest)
    log_event(
        "backup-recorded",
        level=logging.INFO if verification.passed else logging.ERROR,
        cluster=ref.cluster,
        label=ref.label,
        new=new,
        findings=[finding.model_dump() for finding in verification.findings],
    )
    guard_backup(services, ref)


def _record_report(services: Services, name: BlobName) -> None:
    stored = read_report(services.store, name, services.pinned)
    if isinstance(stored.report, ExpiryReport):
        record_expiry(services, stored, stored.report)
        return
    # Ancestors first: what is said of this backup builds on what was just found out about them.
    for ancestor in _reports_of_ancestors(stored.report):
        _believe(services, ancestor, partial(_record_one, services, ancestor))
    _record_one(services, name)


def _record_one(services: Services, name: BlobName) -> None:
    stored = read_report(services.store, name, services.pinned)
    new = services.catalogue.record(stored, services.clock())
    label = None if isinstance(stored.report, ExpiryReport) else stored.report.label
    log_event("report-recorded", blob=name, label=label, new=new)


def _reports_of_ancestors(report: VerificationReport | DrillReport) -> list[BlobName]:
    """Those that the same run wrote; older ones came with events of their own."""
    if isinstance(report, DrillReport):
        return []
    cluster = ClusterName(report.cluster)
    return [
        layout.verification_report(cluster, proof.report)
        for proof in report.chain
        if not proof.remembered
    ]


def _believe(services: Services, name: BlobName, record: Callable[[], None]) -> None:
    try:
        record()
    except PgkeepError as error:
        conflict = isinstance(error, BackupConflict | ClusterConflict | ReportConflict)
        if not conflict and not is_unbelievable(error):
            raise
        set_aside(services, str(name), error)
    else:
        services.catalogue.release(str(name))


def set_aside(services: Services, name: str, error: PgkeepError) -> None:
    services.catalogue.set_aside(name, error.code, error.fact, services.clock())
    log_event("set-aside", level=logging.ERROR, object=name, code=error.code, fact=error.fact)
