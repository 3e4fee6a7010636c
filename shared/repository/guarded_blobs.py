"""Which blobs a cluster's kept backups need, by the prefixes that lifecycle rules know."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.lifecycle_guard import Need, NeedKind
from shared.domain.lifecycle_rules import ARCHIVE_TIER
from shared.domain.needed_until import (
    GuardedBackup,
    NeededBackup,
    RetentionTerms,
    needed_backups,
)
from shared.errors import InvalidInput
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobStore
from shared.repository.layout import BackupRef

# Data keys of WAL are as old as the session that writes it, which is at most a day.
_WAL_KEY_LIFE: Final = timedelta(days=1)


def needs_of(
    cluster: ClusterName,
    backups: Iterable[GuardedBackup],
    terms: RetentionTerms,
    now: datetime,
) -> tuple[Need, ...]:
    """All that must stay for the backups that retention wants, and for the WAL that it promises."""
    needed = needed_backups(backups, terms, now)
    of_backups = (need for one in needed for need in _of_backup(cluster, one))
    promised = now + timedelta(days=terms.wal_days)
    wal = Need(NeedKind.WAL, _wal(cluster), now, promised)
    return (*of_backups, wal, *_identity(cluster, needed))


def folders_of(cluster: ClusterName) -> tuple[str, ...]:
    """Prefixes below which everything of the cluster lies: a rule that touches none is harmless."""
    own = layout.backups_prefix(cluster)
    containers = (*(kind.value for kind in BackupKind), layout.WAL, layout.EVIDENCE)
    return tuple(f"{container}/{own}" for container in containers)


def archived_of(store: BlobStore, ref: BackupRef) -> dict[BackupRef, int]:
    """How many of the backup's blobs are in the archive tier; empty when none is."""
    return _archived(store.list(ref.kind.value, ref.blob("").path))


def archived_anywhere(store: BlobStore) -> dict[BackupRef, int]:
    """The same for all backups of all clusters, at the cost of listing them: 5,000 blobs a page."""
    return {
        ref: count
        for kind in BackupKind
        for ref, count in _archived(store.list(kind.value)).items()
    }


def _archived(blobs: Iterable[BlobInfo]) -> dict[BackupRef, int]:
    found: Counter[BackupRef] = Counter()
    for blob in blobs:
        if blob.tier == ARCHIVE_TIER:
            with suppress(InvalidInput):  # a blob that is none of ours may lie where it likes
                found[layout.parse_backup_blob(blob.name)[0]] += 1
    return dict(found)


def _of_backup(cluster: ClusterName, needed: NeededBackup) -> Iterator[Need]:
    """Its blobs, the WAL from its start on, the keys of both, and the reports about it."""
    label = needed.backup.label
    ref = BackupRef(cluster, label)
    own = NeedKind.PARENT if needed.is_parent else NeedKind.BACKUP
    key_at = label.time - _WAL_KEY_LIFE
    for kind, prefix, written in (
        (own, f"{ref.blob('')}", label.time),
        (NeedKind.WAL, _wal(cluster), label.time),
        (NeedKind.KEYS, _evidence(layout.key_records_prefix(cluster)), key_at),
        (NeedKind.REPORTS, _evidence(layout.verification_reports_prefix(cluster)), label.time),
        (NeedKind.REPORTS, _evidence(layout.proofs_prefix(ref)), label.time),
        (NeedKind.REPORTS, _evidence(layout.drill_reports_prefix(cluster)), label.time),
    ):
        yield Need(kind, prefix, written, needed.until, needed.carries)


def _identity(cluster: ClusterName, needed: Sequence[NeededBackup]) -> Iterator[Need]:
    """Without `cluster.json` no backup is believed; it is as old as the cluster, and stays."""
    if needed:
        labels = tuple(one.backup.label for one in needed)
        prefix = str(layout.cluster_document(cluster))
        yield Need(NeedKind.KEYS, prefix, labels[0].time, None, labels)


def _wal(cluster: ClusterName) -> str:
    return f"{layout.WAL}/{layout.wal_prefix(cluster)}"


def _evidence(path: str) -> str:
    return f"{layout.EVIDENCE}/{path}"
