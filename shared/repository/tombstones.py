"""Tombstones: which backups `expire` meant to delete, so that their absence is no alarm.

A name alone proves nothing: whoever can write blobs can write it. It counts when the document under
it is signed and says the same.
"""

from collections.abc import Iterator

from shared.domain.cluster import ClusterName
from shared.errors import InvalidInput, PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import DocumentMisplaced
from shared.repository.belief import is_unbelievable
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.expiry_documents import Tombstone
from shared.repository.layout import BackupRef
from shared.repository.signatures import MAX_DOCUMENT, PinnedKeys, read_signed


def tombstone_of(store: BlobStore, backup: BackupRef, pinned: PinnedKeys) -> Tombstone | None:
    """One that can be believed; None when no run of `expire` has meant to delete the backup."""
    prefix = layout.tombstones_prefix(backup.cluster, backup.label)
    names = (blob.name for blob in store.list(layout.EVIDENCE, prefix))
    return next(believed_tombstones(store, names, pinned), None)


def named_tombstones(store: BlobStore, cluster: ClusterName) -> Iterator[tuple[BlobName, str]]:
    """Every tombstone of the cluster by its name, and the run that wrote it; none is read."""
    for blob in store.list(layout.EVIDENCE, layout.tombstones_prefix(cluster)):
        try:
            yield blob.name, layout.parse_tombstone(blob.name)[1]
        except InvalidInput as error:
            log_event("blob-foreign", name=str(blob.name), code=error.code)


def believed_tombstones(
    store: BlobStore, names: Iterator[BlobName], pinned: PinnedKeys
) -> Iterator[Tombstone]:
    """Those that authenticate and say what their names say; others are logged."""
    for name in names:
        try:
            yield _read(store, name, pinned)
        except PgkeepError as error:
            if not is_unbelievable(error):
                raise
            log_event("tombstone-not-believed", name=str(name), code=error.code, fact=error.fact)


def _read(store: BlobStore, name: BlobName, pinned: PinnedKeys) -> Tombstone:
    ref, run = layout.parse_tombstone(name)
    found = read_signed(store.read(name, limit=MAX_DOCUMENT), Tombstone, pinned)
    if (found.cluster, found.label, str(found.run)) != (ref.cluster, ref.label.text, run):
        raise DocumentMisplaced(f"{name} holds the tombstone of {found.label} of {found.cluster}")
    return found
