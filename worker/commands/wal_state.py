"""What the repository says of a cluster's WAL: how far each timeline is archived, and its holes.

Read from names alone: neither a key nor the catalogue is needed.
"""

from dataclasses import dataclass
from datetime import datetime

from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.wal_inventory import WalInventory
from shared.repository.backups import BackupNotFound, find_backup, read_backup
from shared.repository.wal_listing import refresh
from worker.commands.services import Services


@dataclass(frozen=True, slots=True)
class TimelineState:
    """Log from `start` to `through`, without what lies in `gaps`; commits as first and last there.

    `stored_bytes` is what the blobs take.
    """

    timeline: int
    start: Lsn
    through: Lsn
    first_commit: datetime | None
    through_commit: datetime | None
    gaps: tuple[tuple[Lsn, Lsn], ...]
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class WalState:
    """Timelines by number; none when no WAL is archived."""

    cluster: ClusterName
    timelines: tuple[TimelineState, ...]


def wal_state(services: Services, cluster: ClusterName) -> WalState:
    """Lists the cluster's whole archive. Raises what the store does, and reading a document."""
    size = _segment_size(services, cluster)
    inventory = refresh(services.store, cluster, None, size).inventory
    return WalState(cluster, tuple(_timeline(inventory, number) for number in inventory.timelines))


def _segment_size(services: Services, cluster: ClusterName) -> int | None:
    """By the newest backup; without one, the archive's whole segments must tell."""
    try:
        ref = find_backup(services.store, cluster, None)
    except BackupNotFound:
        return None
    document = read_backup(services.store, ref, services.pinned).document
    return document.postgres.wal_segment_size


def _timeline(inventory: WalInventory, number: int) -> TimelineState:
    ranges = inventory.of(number)
    firsts = (one.first_commit for one in ranges if one.first_commit)
    lasts = (one.last_commit for one in reversed(ranges) if one.last_commit)
    return TimelineState(
        timeline=number,
        start=ranges[0].start,
        through=ranges[-1].end,
        first_commit=next(firsts, None),
        through_commit=next(lasts, None),
        gaps=inventory.gaps(number),
        stored_bytes=sum(one.stored_bytes for one in ranges),
    )
