"""The port of the watch over replication: what waits for the second region, what is there."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from shared.domain.cluster import ClusterName
from shared.domain.replication import GeoReplication, PendingBackup


class GeoFacts(Protocol):
    """Operational: a catalogue that was lost finds out again."""

    def note_replication(self, seen: GeoReplication, now: datetime) -> datetime | None:
        """Keep what the account said; gives the latest Last Sync Time that it ever told.

        That time never goes back, and what is geo-safe stays so, until a new secondary is being
        filled: then nothing is known to be there any more.
        """
        ...

    def last_sync_time(self) -> datetime | None: ...

    def pending_replication(self) -> Sequence[PendingBackup]:
        """Backups that are not known to be geo-safe, oldest first."""
        ...

    def mark_geo_safe(self, backups: Collection[PendingBackup], now: datetime) -> None:
        """Those that are marked already keep their time."""
        ...

    def note_wal_copies(self, last_sync_time: datetime) -> None:
        """Of every cluster whose WAL was looked at: what was protected before is safe by now."""
        ...

    def wal_safe_through(self, cluster: ClusterName) -> datetime | None:
        """The instant before which every commit's WAL is in the secondary, as far as is known."""
        ...
