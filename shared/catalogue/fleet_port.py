"""The port to what is known of a fleet as a whole: read for many clusters at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from shared.domain.backup_freshness import BackupAges
from shared.domain.cluster import ClusterName
from shared.domain.freshness import WalFreshness
from shared.domain.rto_prediction import DrillTimes
from shared.domain.storage_use import StorageSample


@dataclass(frozen=True, slots=True)
class FleetMember:
    """What the catalogue knows of a cluster. Sizes in bytes.

    `restored_bytes`: what a restore of the newest full backup writes. `replayed_bytes`: the WAL
    that a recovery from the newest backup to now would replay, as far as it is archived.
    `geo_safe_at`: when the newest backup was committed that is whole in the second region.
    `drills`: the newest ones that passed, newest first. What is dated in the future does not count.
    """

    ages: BackupAges
    stored_bytes: int
    wal_bytes: int
    restored_bytes: int
    replayed_bytes: int
    wal: WalFreshness | None
    geo_safe_at: datetime | None = None
    drills: tuple[DrillTimes, ...] = ()

    @property
    def used_bytes(self) -> int:
        return self.stored_bytes + self.wal_bytes


class FleetFacts(Protocol):
    """A few queries, however many clusters."""

    def fleet(
        self, clusters: Iterable[ClusterName], now: datetime
    ) -> Mapping[ClusterName, FleetMember]:
        """Of every cluster given; one that was never asked about is first seen `now`."""
        ...

    def put_storage_samples(self, used: Mapping[ClusterName, int], day: date) -> None:
        """The last of a day stays; days of more than a year ago are forgotten."""
        ...

    def storage_samples(
        self, clusters: Iterable[ClusterName], since: date
    ) -> Mapping[ClusterName, Sequence[StorageSample]]:
        """By day; clusters without any are left out."""
        ...
