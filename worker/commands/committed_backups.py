"""What is committed already, and committing the next: each backup names the one before it.

Documents are numbered in the order in which they are committed, and labels sort by the age of what
they hold. These are one order but for synthetic fulls: such a backup is as old as the chain that it
was composed of, and stands behind it, though others may have been committed since.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import ClusterName
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.repository.backups import StoredBackup, list_backups, read_backup
from shared.repository.documents import BackupDocument
from shared.repository.layout import BackupRef
from shared.repository.signatures import document_digest, sign_document
from worker.commands.cluster_identity import signer_of
from worker.commands.recorded_outcomes import record_backup
from worker.commands.services import Services

# Behind how many later backups a job that is delivered again may find its own.
_LOOK_BACK: Final = 16
# The least by which labels can differ in time.
_BEHIND: Final = timedelta(seconds=1)
# By how much a label may lie ahead of the clock for it to follow another: beyond, a clock is wrong.
_AHEAD: Final = timedelta(minutes=1)


def holder(services: Services, job_id: UUID | None) -> str:
    """Who is named to others that want the lease."""
    return f"{services.host} ({f'job {job_id}' if job_id else 'by hand'})"


def next_label(
    services: Services, cluster: ClusterName, kind: BackupKind, now: datetime
) -> BackupLabel:
    """Sorts behind all that is committed, even if the last backup began in this second."""
    newest = next(iter(newest_first(services, cluster)), None)
    if newest is not None and now < newest.label.time + _BEHIND <= now + _AHEAD:
        now = newest.label.time + _BEHIND
    return BackupLabel.new(kind, now)


def synthetic_label(newest: BackupLabel) -> BackupLabel:
    """Sorts behind the chain that ends in `newest`, and before every later backup."""
    return BackupLabel.new(BackupKind.FULL, newest.time + _BEHIND)


def newest_first(services: Services, cluster: ClusterName) -> list[BackupRef]:
    """By label, which is by the age of what they hold."""
    return sorted(list_backups(services.store, cluster), key=lambda ref: ref.label, reverse=True)


def believed(services: Services, refs: Iterator[BackupRef]) -> Iterator[StoredBackup]:
    """Those that authenticate: a damaged document must not stop the next backup."""
    for ref in refs:
        try:
            yield read_backup(services.store, ref, services.pinned)
        except PgkeepError as error:
            if error.retryable:
                raise
            log_event("backup-document-refused", label=ref.label, code=error.code, fact=error.fact)


def last_committed(services: Services, cluster: ClusterName) -> StoredBackup | None:
    """The one that the next document names."""
    refs = newest_first(services, cluster)
    newest = islice(believed(services, iter(refs)), 1)
    candidates = [*newest, *believed(services, iter(_behind_a_chain(refs)))]
    return max(candidates, key=lambda stored: stored.document.counter, default=None)


def committed_by(
    services: Services, cluster: ClusterName, job_id: UUID | None
) -> StoredBackup | None:
    """The backup that this job has committed, if it is among the last."""
    if job_id is None:
        return None
    refs = newest_first(services, cluster)
    likely = dict.fromkeys((*refs[:_LOOK_BACK], *_behind_a_chain(refs)))
    found = believed(services, iter(likely))
    return next((stored for stored in found if stored.document.job_id == job_id), None)


def commit(services: Services, ref: BackupRef, document: BackupDocument) -> StoredBackup:
    """Sign and create it: with this the backup exists."""
    raw = sign_document(document, signer_of(services))
    services.store.create(ref.document, raw)
    log_event("backup-committed", cluster=ref.cluster, label=ref.label)
    record_backup(services.telemetry, document)
    return StoredBackup(ref, document, document_digest(raw))


def _behind_a_chain(refs: list[BackupRef]) -> list[BackupRef]:
    """Those whose labels look like synthetic ones; what they are, their documents say."""
    chains = {ref.label.time for ref in refs if ref.kind is BackupKind.INCREMENTAL}
    return [
        ref for ref in refs if ref.kind is BackupKind.FULL and ref.label.time - _BEHIND in chains
    ]
