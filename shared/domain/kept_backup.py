"""What retention weighs, and what is wanted of it: a committed backup, and a cluster's policy."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.domain.backup import BackupKind
from shared.domain.lsn import Lsn
from shared.domain.wal_retention import WalStretch

# A label's time is the worker's clock; so far ahead of ours it says nothing about age.
FUTURE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KeptBackup:
    """A committed backup. `at` is the time in its label, `finished_at` None is the same.

    `damaged`: the newest verification or drill failed. `whole`: every blob and key that it names is
    there. `continuous`: its WAL is archived from its start to the newest of its timeline; if not,
    `reaches` is where the gap begins, None where it is not even its own end. `wal` is what its own
    recovery reads.
    """

    label: str
    kind: BackupKind
    at: datetime
    timeline: int
    start_lsn: Lsn
    digest: str
    parent: str | None = None
    verified: bool = False
    proven: bool = False
    suspect: bool = False
    damaged: bool = False
    whole: bool = True
    continuous: bool = True
    reaches: Lsn | None = None
    stored_bytes: int = 0
    finished_at: datetime | None = None
    wal: tuple[WalStretch, ...] = ()

    @property
    def good(self) -> bool:
        sound = self.whole and not self.suspect and not self.damaged
        return sound and (self.verified or self.proven)

    @property
    def state(self) -> str:
        """One word for people."""
        if not self.whole:
            return "incomplete"
        if self.damaged or self.suspect:
            return "damaged" if self.damaged else "suspect"
        if self.proven or self.verified:
            return "proven" if self.proven else "verified"
        return "unverified"

    @property
    def end_lsn(self) -> Lsn:
        """Where it is consistent, on its own timeline."""
        ends = (one.end for one in self.wal if one.timeline == self.timeline)
        return max(ends, default=self.start_lsn)

    def is_future(self, now: datetime) -> bool:
        return self.at > now + FUTURE


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Ages in days; counts of good full backups. A rhythm keeps the first good full of a period."""

    full_days: float = 28
    incremental_days: float = 7
    wal_days: float = 28
    keep_last: int = 2
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    deletions_per_run: int = 20
    holds: Collection[str] = ()

    def days_of(self, kind: BackupKind) -> float:
        return self.full_days if kind is BackupKind.FULL else self.incremental_days
