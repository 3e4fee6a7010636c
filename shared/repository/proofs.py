"""What has been proved of a backup: its verifications, found by its label.

The signed report is the proof. An empty blob beside it, whose name holds the backup's label, the
report's time and its id, only says where to look: whoever can write blobs can write such a name, so
it counts for nothing until the report that it names was authenticated and says the same.
"""

from collections.abc import Iterator
from heapq import nlargest

from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.errors import BlobNotFound, InvalidInput, PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import StoredBackup
from shared.repository.belief import is_unbelievable
from shared.repository.blob_store import BlobStore
from shared.repository.documents import VerificationReport
from shared.repository.layout import BackupRef, ProofPointer
from shared.repository.reports import read_report
from shared.repository.signatures import PinnedKeys

# The newest report decides. Some more are looked at, because junk may sort before it; when junk
# fills all of them nothing is remembered, and the backup is read once more.
_READ_AT_MOST = 4


def remember(store: BlobStore, report: VerificationReport) -> None:
    """Let a stored report be found by its backup; idempotent."""
    if _decides(report):
        store.create(layout.proof_pointer(_pointer_to(report)), b"")


def newest_verification(
    store: BlobStore, backup: StoredBackup, pinned: PinnedKeys
) -> VerificationReport | None:
    """The newest report about exactly this document that decides, passed or not; None without any.

    One that passed is deep.
    """
    for pointer in nlargest(_READ_AT_MOST, _pointers(store, backup.ref), lambda item: item.at):
        report = _report(store, pointer, pinned)
        if report is not None and report.document_digest == backup.digest and _decides(report):
            return report
    return None


def _decides(report: VerificationReport) -> bool:
    """Stored bytes alone can show damage; that there is none, only a deep verification shows."""
    return report.deep or not report.passed


def _pointer_to(report: VerificationReport) -> ProofPointer:
    ref = BackupRef(ClusterName(report.cluster), BackupLabel(report.label))
    return ProofPointer(ref, report.created_at, report.id)


def _pointers(store: BlobStore, ref: BackupRef) -> Iterator[ProofPointer]:
    for blob in store.list(layout.EVIDENCE, layout.proofs_prefix(ref)):
        try:
            yield layout.parse_proof_pointer(blob.name)
        except InvalidInput as error:
            log_event("blob-foreign", name=str(blob.name), code=error.code)


def _report(
    store: BlobStore, pointer: ProofPointer, pinned: PinnedKeys
) -> VerificationReport | None:
    """The report that the pointer tells the truth about; None without one that can be believed."""
    name = layout.verification_report(pointer.backup.cluster, pointer.report)
    try:
        report = read_report(store, name, pinned).report
    except BlobNotFound:
        return None
    except PgkeepError as error:
        if is_unbelievable(error):
            log_event("proof-not-believed", name=str(name), code=error.code, fact=error.fact)
            return None
        raise
    if not isinstance(report, VerificationReport):
        return None
    return report if _pointer_to(report) == pointer else None
