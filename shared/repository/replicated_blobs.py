"""Which blobs a backup needs, and when storage received each: what its geo-safety is judged by."""

from collections.abc import Iterator

from shared.domain.replication import ArchivedPiece, Artefact, BackupCopy, NeededWal
from shared.domain.wal_segment import segment_name
from shared.errors import BlobNotFound
from shared.repository import layout
from shared.repository.backups import StoredBackup
from shared.repository.blob_store import BlobInfo, BlobName, BlobStore
from shared.repository.documents import WalRange
from shared.repository.wal_listing import archived_wal

# Segments of a backup are few; whatever lies behind them shall not be fetched.
_PAGE = 500


def copy_of(store: BlobStore, stored: StoredBackup) -> BackupCopy:
    """By listings alone: of the backup's own folder, its key records, and its stretch of WAL."""
    artefacts = (*_parts(store, stored), *_keys(store, stored), _identity(store, stored))
    wal = tuple(_needed_wal(store, stored, needed) for needed in stored.document.wal)
    return BackupCopy(artefacts, wal)


def _parts(store: BlobStore, stored: StoredBackup) -> Iterator[Artefact]:
    ref = stored.ref
    there = {blob.name: blob for blob in store.list(ref.kind.value, ref.blob("").path)}
    for part in stored.document.parts:
        yield _artefact(ref.blob(part.name), there.get(ref.blob(part.name)))
    yield _artefact(ref.document, there.get(ref.document))


def _keys(store: BlobStore, stored: StoredBackup) -> Iterator[Artefact]:
    """All records of each data key: the newest re-wrap may be the only one that still opens."""
    document = stored.document
    for kid in sorted({document.kid, *(item.kid for item in document.objects)}):
        prefix = layout.key_records_prefix(stored.ref.cluster, kid)
        records = [_artefact(blob.name, blob) for blob in store.list(layout.EVIDENCE, prefix)]
        yield from records or [_artefact(layout.key_record(stored.ref.cluster, kid), None)]


def _identity(store: BlobStore, stored: StoredBackup) -> Artefact:
    """Without `cluster.json` no backup of the cluster is believed."""
    name = layout.cluster_document(stored.ref.cluster)
    try:
        return _artefact(name, store.head(name))
    except BlobNotFound:
        return _artefact(name, None)


def _needed_wal(store: BlobStore, stored: StoredBackup, needed: WalRange) -> NeededWal:
    pieces = tuple(_pieces(store, stored, needed))
    archived = not stored.document.wal_included
    return NeededWal(needed.start, needed.end, pieces, archived)


def _pieces(store: BlobStore, stored: StoredBackup, needed: WalRange) -> Iterator[ArchivedPiece]:
    size = stored.document.postgres.wal_segment_size
    folder = layout.wal_prefix(stored.ref.cluster, needed.timeline)
    first = f"{folder}{segment_name(needed.timeline, needed.start, size)}"
    for blob in store.list(layout.WAL, folder, start=first, page=_PAGE):
        held = archived_wal(blob, size)
        if held is None:
            continue
        if held.start >= needed.end:
            return
        if held.end > needed.start:
            yield ArchivedPiece(held.start, held.end, _artefact(blob.name, blob))


def _artefact(name: BlobName, blob: BlobInfo | None) -> Artefact:
    if blob is None:
        return Artefact(str(name), None)
    return Artefact(str(name), blob.modified, blob.copied)
