"""Reading reports back: signed evidence of deep verifications, drills and expiry."""

from dataclasses import dataclass

from shared.repository import layout
from shared.repository.backups import DocumentMisplaced
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.documents import DrillReport, VerificationReport
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.signatures import (
    MAX_DOCUMENT,
    PinnedKeys,
    document_digest,
    read_signed,
)

AnyReport = VerificationReport | DrillReport | ExpiryReport
_MODELS: dict[str, type[AnyReport]] = {
    "verifications": VerificationReport,
    "drills": DrillReport,
    "expiries": ExpiryReport,
}


@dataclass(frozen=True, slots=True)
class StoredReport:
    """An authenticated report, and the SHA-256 of its stored bytes."""

    report: AnyReport
    digest: str


def is_report(name: BlobName) -> bool:
    """Whether it is one of those that are catalogued."""
    _, _, rest = name.path.partition("/")
    kind = rest.partition("/")[0]
    return name.container == layout.EVIDENCE and kind in _MODELS and rest.endswith("/report.json")


def read_report(store: BlobStore, name: BlobName, pinned: PinnedKeys) -> StoredReport:
    """Raises BlobNameUnknown, BlobNotFound, DocumentMisplaced and what `read_signed` raises."""
    cluster, kind, report_id = layout.parse_report(name)
    raw = store.read(name, limit=MAX_DOCUMENT)
    report = read_signed(raw, _MODELS[kind], pinned)
    if (report.cluster, str(report.id)) != (cluster, report_id):
        raise DocumentMisplaced(f"{name} holds report {report.id} of cluster {report.cluster}")
    return StoredReport(report, document_digest(raw))
