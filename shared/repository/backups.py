"""Reading the repository's documents back: which backups exist, and what each one says.

Every function here authenticates before it believes: a document counts only when a pinned key
signed it and it says about itself what its name says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.errors import (
    BlobNotFound,
    Corrupt,
    Denied,
    InvalidInput,
    NotFound,
    PgkeepError,
    Refused,
)
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.documents import BackupDocument, ClusterDocument
from shared.repository.key_record import KeyRecord, effective_record
from shared.repository.layout import BackupRef
from shared.repository.signatures import (
    MAX_DOCUMENT,
    PinnedKeys,
    document_digest,
    read_signed,
)


class BackupNotFound(NotFound):
    """No backup of this name, or none at all."""

    code = "backup-not-found"
    hint = "`pgkeep list` shows the backups of every cluster."


class DocumentMisplaced(Corrupt):
    """A validly signed document that lies under another document's name."""

    code = "document-misplaced"
    hint = "Somebody moved or copied it: look at who can write to the repository."


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """A backup document that was authenticated, and the SHA-256 of its stored bytes."""

    ref: BackupRef
    document: BackupDocument
    digest: str


def list_backups(store: BlobStore, cluster: ClusterName | None = None) -> Iterator[BackupRef]:
    """Committed backups by their names alone, per kind from oldest to newest.

    Reads no document. Without `cluster`, those of all clusters. A foreign blob that merely looks
    like a document is logged and passed over: junk must not stop the next backup.
    """
    prefix = "" if cluster is None else layout.backups_prefix(cluster)
    for kind in BackupKind:
        for blob in store.list(kind.value, prefix):
            if not layout.is_backup_document(blob.name):
                continue
            try:
                yield layout.backup_of_document(blob.name)
            except InvalidInput as error:
                log_event("blob-foreign", name=str(blob.name), code=error.code)


def newest_backup(store: BlobStore, cluster: ClusterName) -> BackupRef | None:
    """The newest committed backup of any kind, by the time in its label."""
    return max(list_backups(store, cluster), key=lambda ref: ref.label, default=None)


def find_backup(store: BlobStore, cluster: ClusterName, label: str | None) -> BackupRef:
    """The backup called `label`, or the newest. Raises BackupNotFound."""
    for ref in sorted(list_backups(store, cluster), key=lambda ref: ref.label, reverse=True):
        if label is None or ref.label.text == label:
            return ref
    raise BackupNotFound(f"cluster {cluster} has no backup {label or 'at all'}")


def read_backup(store: BlobStore, ref: BackupRef, pinned: PinnedKeys) -> StoredBackup:
    """Raises BackupNotFound, SignatureInvalid, SignerNotPinned, FormatTooNew, DocumentMisplaced."""
    try:
        raw = store.read(ref.document, limit=MAX_DOCUMENT)
    except BlobNotFound:
        raise BackupNotFound(f"cluster {ref.cluster} has no backup {ref.label}") from None
    document = read_signed(raw, BackupDocument, pinned)
    if (document.cluster, document.label) != (ref.cluster, ref.label.text):
        raise DocumentMisplaced(
            f"{ref.document} holds backup {document.label} of {document.cluster}"
        )
    return StoredBackup(ref, document, document_digest(raw))


def read_cluster(
    store: BlobStore, cluster: ClusterName, pinned: PinnedKeys
) -> ClusterDocument | None:
    """The identity the cluster was registered with, or None before its first backup."""
    name = layout.cluster_document(cluster)
    try:
        raw = store.read(name, limit=MAX_DOCUMENT)
    except BlobNotFound:
        return None
    document = read_signed(raw, ClusterDocument, pinned)
    if document.cluster != cluster:
        raise DocumentMisplaced(f"{name} holds cluster {document.cluster}")
    return document


def read_key_record(
    store: BlobStore, cluster: ClusterName, kid: str, pinned: PinnedKeys
) -> KeyRecord:
    """The highest re-wrap that authenticates; a refused one is passed over while another holds.

    Raises BlobNotFound when there is no record, and what the first refused one raised when none
    can be believed.
    """
    records: list[KeyRecord] = []
    refused: list[PgkeepError] = []
    for blob in store.list(layout.EVIDENCE, layout.key_records_prefix(cluster, kid)):
        try:
            records.append(_key_record(store, blob.name, pinned))
        except (Corrupt, Denied, Refused) as error:
            refused.append(error)
    if records:
        return effective_record(records)
    raise refused[0] if refused else BlobNotFound(f"no key record {kid} of cluster {cluster}")


def _key_record(store: BlobStore, name: BlobName, pinned: PinnedKeys) -> KeyRecord:
    record = read_signed(store.read(name, limit=MAX_DOCUMENT), KeyRecord, pinned)
    if (record.cluster, record.kid, record.rewrap) != layout.parse_key_record(name):
        raise DocumentMisplaced(f"{name} holds key record {record.kid}")
    return record
