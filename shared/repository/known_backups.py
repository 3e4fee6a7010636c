"""The backups that a recovery may begin with: authenticated, and their chains without a gap."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from shared.domain.cluster import ClusterName
from shared.domain.recovery_path import BackupCandidate
from shared.domain.recovery_plan import RecoveryPlan, plan_recovery
from shared.domain.recovery_target import RecoveryTarget
from shared.domain.wal_inventory import ListedArchive
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.repository.backups import BackupNotFound, StoredBackup, list_backups, read_backup
from shared.repository.blob_store import BlobStore
from shared.repository.chains import StoredChain, follow_chain
from shared.repository.layout import BackupRef
from shared.repository.signatures import PinnedKeys

Known = TypeVar("Known")


@dataclass(frozen=True, slots=True)
class KnownBackups:
    """The chain of every backup that can be believed, and sentences about those that cannot."""

    chains: tuple[StoredChain, ...]
    refused: tuple[str, ...] = ()

    @property
    def candidates(self) -> tuple[BackupCandidate, ...]:
        return tuple(map(candidate, self.chains))

    def named(self, label: str) -> StoredBackup | None:
        backups = (chain.newest for chain in self.chains)
        return next((item for item in backups if item.document.label == label), None)

    def plan(
        self,
        archive: ListedArchive,
        target: RecoveryTarget,
        *,
        label: str | None,
        timeline: int | None,
    ) -> RecoveryPlan:
        """Raises TargetUnreachable."""
        plan = plan_recovery(self.candidates, archive, target, label=label, timeline=timeline)
        return replace(plan, reasons=(*plan.reasons, *self.refused))


def read_known_backups(
    store: BlobStore,
    pinned: PinnedKeys,
    cluster: ClusterName,
    label: str | None,
    *,
    threads: int,
) -> KnownBackups:
    """Every backup's document, authenticated. One that cannot be believed, or whose chain is not
    whole, is logged and left out, unless it is the one that was named: then it is raised.

    Raises BackupNotFound when there is none at all.
    """

    def read(ref: BackupRef) -> StoredBackup | str:
        return _believed(ref, label, lambda: read_backup(store, ref, pinned))

    with ThreadPoolExecutor(threads) as executor:
        found = list(executor.map(read, list_backups(store, cluster)))
    stored = {item.ref: item for item in found if isinstance(item, StoredBackup)}
    chains = [_chain(backup, stored, label) for backup in stored.values()]
    known = KnownBackups(
        chains=tuple(item for item in chains if isinstance(item, StoredChain)),
        refused=tuple(item for item in (*found, *chains) if isinstance(item, str)),
    )
    if not known.chains or (label and known.named(label) is None):
        raise BackupNotFound(f"cluster {cluster} has no backup {label or 'at all'}")
    return known


def candidate(chain: StoredChain) -> BackupCandidate:
    """What the plan weighs of a backup; bytes are those of its whole chain."""
    document = chain.newest.document
    return BackupCandidate(
        label=document.label,
        timeline=document.timeline,
        start_lsn=document.start_lsn,
        stop_lsn=document.stop_lsn,
        finished_at=document.finished_at,
        segment_size=document.postgres.wal_segment_size,
        wal_included=document.wal_included,
        next_xid=document.next_xid,
        stored_bytes=sum(link.document.stored_size for link in chain.links),
        plain_bytes=sum(link.document.plain_size for link in chain.links),
        suspect=any(link.document.suspect for link in chain.links),
    )


def _chain(
    backup: StoredBackup, stored: Mapping[BackupRef, StoredBackup], label: str | None
) -> StoredChain | str:
    def parent(ref: BackupRef) -> StoredBackup:
        if ref not in stored:
            raise BackupNotFound(f"{ref.label} is not among the backups that can be believed")
        return stored[ref]

    return _believed(backup.ref, label, lambda: follow_chain(backup, parent))


def _believed(ref: BackupRef, label: str | None, read: Callable[[], Known]) -> Known | str:
    """What was read, or why it does not count."""
    try:
        return read()
    except PgkeepError as error:
        if error.retryable or ref.label.text == label:
            raise
        log_event("backup-document-refused", label=ref.label, code=error.code, fact=error.fact)
        return f"backup {ref.label} does not count: {error.fact}"
