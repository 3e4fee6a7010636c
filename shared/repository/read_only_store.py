"""A repository that is only read, as of a time: the copy in the second region.

Azure replicates blobs in no order. What was written before the Last Sync Time is all there; of
what came later some may be. Whoever lists the copy as of that time sees a repository as it once
was, instead of backups without parts and WAL with holes.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from shared.errors import Refused
from shared.repository.blob_store import (
    NO_METADATA,
    BlobInfo,
    BlobName,
    BlobStore,
    Metadata,
)


class StoreReadOnly(Refused):
    """Something would be written to a copy that is only read."""

    code = "store-read-only"
    hint = "Leave out --from-secondary: backups and WAL are written to the primary alone."


class ReadOnlyStore:
    """See shared.repository.blob_store.BlobStore; every write raises StoreReadOnly.

    With `as_of`, listings hold only what storage received before. Reads by name are not limited.
    """

    def __init__(self, store: BlobStore, as_of: datetime | None = None) -> None:
        self._store = store
        self._as_of = as_of

    def create(self, name: BlobName, data: bytes, *, metadata: Metadata = NO_METADATA) -> BlobInfo:
        raise _refusal(name, f"{len(data)} bytes with {len(metadata)} metadata")

    def stage_block(self, name: BlobName, block_id: str, data: bytes) -> None:
        raise _refusal(name, f"block {block_id} of {len(data)} bytes")

    def commit_blocks(self, name: BlobName, block_ids: Sequence[str], *, size: int) -> BlobInfo:
        raise _refusal(name, f"{len(block_ids)} blocks of {size} bytes")

    def head(self, name: BlobName) -> BlobInfo:
        return self._store.head(name)

    def read(self, name: BlobName, *, limit: int) -> bytes:
        return self._store.read(name, limit=limit)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        return self._store.read_range(name, offset, length)

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        for blob in self._store.list(container, prefix, start=start, page=page):
            if self._as_of is None or blob.modified < self._as_of:
                yield blob

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        return self._store.list_folder(container, folder)

    def delete(self, name: BlobName) -> None:
        raise _refusal(name, "a deletion")


def _refusal(name: BlobName, what: str) -> StoreReadOnly:
    return StoreReadOnly(f"{name} is in a copy that is only read: refused {what}")
