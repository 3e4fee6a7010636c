"""Reading reports back: signed evidence of deep verifications and drills."""

from dataclasses import dataclass

from shared.repository import layout
from shared.repository.backups import DocumentMisplaced
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.documents import DrillReport, VerificationReport
from shared.repository.signatures import (
    MAX_DOCUMENT,
    PinnedKeys,
    document_digest,
    read_signed,
)

_MODELS: dict[str, type[VerificationReport | DrillReport]] = {
    "verifications": VerificationReport,
    "drills": DrillReport,
}


@dataclass(frozen=True, slots=True)
class StoredReport:
    """An authenticated report, and the SHA-256 of its stored bytes."""

    report: VerificationReport | DrillReport
    digest: str


def is_report(name: BlobName) -> bool:
    return name.container == layout.EVIDENCE and name.path.endswith("/report.json")


def read_report(store: BlobStore, name: BlobName, pinned: PinnedKeys) -> StoredReport:
    """Raises BlobNameUnknown, BlobNotFound, DocumentMisplaced and what `read_signed` raises."""
    cluster, kind, report_id = layout.parse_report(name)
    raw = store.read(name, limit=MAX_DOCUMENT)
    report = read_signed(raw, _MODELS[kind], pinned)
    if (report.cluster, report.id) != (cluster, report_id):
        raise DocumentMisplaced(f"{name} holds report {report.id} of cluster {report.cluster}")
    return StoredReport(report, document_digest(raw))
