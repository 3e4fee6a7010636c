"""The port to blob storage: create-only writes, ranged reads, nothing is ever overwritten.

Two implementations (azure_blob_store, directory_blob_store) pass one contract suite,
tests/contract/test_blob_store.py. Adapters raise only the errors of shared.errors: what a method
names, and each of them ContainerNotFound, StorageDenied, StorageUnavailable (after patient
repetition), StorageRequestRefused; a write TransferCorrupt, a read BlobArchived.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from shared.domain.replication import CopyState

Metadata = Mapping[str, str]
NO_METADATA: Final[Metadata] = MappingProxyType({})


@dataclass(frozen=True, slots=True, order=True)
class BlobName:
    """Where a blob lives. Built by shared.repository.layout alone."""

    container: str
    path: str

    def __str__(self) -> str:
        return f"{self.container}/{self.path}"


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a HEAD or a listing tells: `size` in bytes, `etag` opaque, `modified` in UTC.

    `metadata` is what the writer gave to `create`. Nobody authenticates it: it may say where to
    look, never what to believe. `tier` is Azure's access tier, such as `Hot` or `Archive`; it may
    change while the blob stays the same. None where there are no tiers, or nobody looked.
    `copied` is how object replication to another account went; None: there is none, or not yet.
    """

    name: BlobName
    size: int
    etag: str
    modified: datetime
    metadata: Metadata = field(default_factory=dict, hash=False)
    tier: str | None = field(default=None, compare=False)
    copied: CopyState | None = field(default=None, compare=False)


class BlobStore(Protocol):
    """Nine operations; all are safe to call from several threads at once."""

    def create(self, name: BlobName, data: bytes, *, metadata: Metadata = NO_METADATA) -> BlobInfo:
        """Write a whole blob with its metadata, at once, if and only if the name is free.

        Names in `metadata` are lower-case letters, digits and `_`, not first a digit; values are
        printable ASCII; together at most 4 KiB. Raises BlobAlreadyExists when the name is taken by
        other bytes. A retry after a lost reply reads back what is there: identical bytes are
        success, so the call is idempotent.
        """
        ...

    def stage_block(self, name: BlobName, block_id: str, data: bytes) -> None:
        """Upload one block; invisible until `commit_blocks` names it. Re-sending is harmless.

        `block_id` is plain text of equal length for all blocks of a blob (the adapter encodes it).
        `data` is at most 64 MiB.
        """
        ...

    def commit_blocks(self, name: BlobName, block_ids: Sequence[str], *, size: int) -> BlobInfo:
        """Make the blob appear atomically from its staged blocks, if and only if the name is free.

        `size` is what the blocks add up to. Raises BlobAlreadyExists when somebody else's blob
        has the name; when the reply to an earlier attempt was lost and the blob there is ours
        (same committed block list), that is success. Raises BlockListInvalid, and nothing becomes
        visible, when a block is not there; Corrupt when the stored size differs.
        """
        ...

    def head(self, name: BlobName) -> BlobInfo:
        """Raises BlobNotFound."""
        ...

    def read(self, name: BlobName, *, limit: int) -> bytes:
        """The whole blob. Raises Corrupt, before reading, when it is larger than `limit` bytes."""
        ...

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises Corrupt when the blob ends before."""
        ...

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        """Committed blobs whose path begins with `prefix`, by path. Complete, or raises.

        Only those whose path is `start` or sorts after it, at no cost for the others. `page` is how
        many to fetch at a time: a caller that stops early says few.
        """
        ...

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        """Names directly in `folder`, sorted: of blobs, and with a slash at the end of folders.

        `folder` is empty or ends in a slash. The cost is that of the names given, not of what lies
        deeper; a folder that was emptied may still be named.
        """
        ...

    def delete(self, name: BlobName) -> None:
        """Remove a committed blob; only the identity of `expire` may.

        Raises BlobNotFound, also when an earlier attempt whose reply was lost has removed it, and
        BlobImmutable as long as a retention policy keeps it.
        """
        ...
