"""The chain behind an incremental backup, read and judged by its documents alone."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.domain.backup import BackupLabel
from shared.errors import ChainBroken
from shared.repository.backups import BackupNotFound, StoredBackup, read_backup
from shared.repository.blob_store import BlobStore
from shared.repository.layout import BackupRef
from shared.repository.signatures import PinnedKeys


@dataclass(frozen=True, slots=True)
class StoredChain:
    """The full backup first, then the incrementals in order; a full backup is a chain of one."""

    links: tuple[StoredBackup, ...]

    @property
    def full(self) -> StoredBackup:
        return self.links[0]

    @property
    def newest(self) -> StoredBackup:
        return self.links[-1]

    @property
    def refs(self) -> tuple[BackupRef, ...]:
        return tuple(link.ref for link in self.links)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(link.ref.label.text for link in self.links)


def read_chain(store: BlobStore, backup: StoredBackup, pinned: PinnedKeys) -> StoredChain:
    """Every document from `backup` down to its full, each bound to its child by its digest.

    Raises ChainBroken for a parent that is absent, was replaced, or cannot be one; what
    `read_backup` raises for one that cannot be believed.
    """
    return follow_chain(backup, lambda ref: read_backup(store, ref, pinned))


def follow_chain(backup: StoredBackup, read: Callable[[BackupRef], StoredBackup]) -> StoredChain:
    """The same for documents that `read` knows, which raises BackupNotFound for others."""
    links = [backup]
    while (link := links[-1].document.parent) is not None:
        ref = BackupRef(backup.ref.cluster, BackupLabel.parse(link.label))
        try:
            parent = read(ref)
        except BackupNotFound:
            raise ChainBroken(f"{links[-1].ref.label} needs {link.label}, which is gone") from None
        check_link(parent, links[-1])
        links.append(parent)
    return StoredChain(tuple(reversed(links)))


def check_link(parent: StoredBackup, child: StoredBackup) -> None:
    """What pg_combinebackup checks of a chain, and that the document is the one that was named.

    Raises ChainBroken.
    """
    older, newer = parent.document, child.document
    problem = None
    if newer.parent is not None and parent.digest != newer.parent.digest:
        problem = f"has digest {parent.digest} instead of {newer.parent.digest}"
    elif older.system_identifier != newer.system_identifier:
        problem = f"is of system {older.system_identifier}, not {newer.system_identifier}"
    elif older.start_lsn >= newer.start_lsn:  # hence a chain cannot come back to itself
        problem = f"starts at {older.start_lsn}, not before {newer.start_lsn}"
    elif older.postgres.major != newer.postgres.major:
        problem = f"is of PostgreSQL {older.postgres.major}, not {newer.postgres.major}"
    elif _format(parent) != _format(child):
        problem = "has another block size or page-checksum setting"
    if problem:
        raise ChainBroken(f"the parent of {newer.label}, {older.label}, {problem}")


def _format(backup: StoredBackup) -> tuple[int, bool]:
    facts = backup.document.postgres
    return facts.block_size, facts.data_checksums
