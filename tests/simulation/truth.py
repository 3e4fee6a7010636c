"""What really happened, written down by those who did it: never read by the control plane."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.repository.layout import BackupRef
from tests.harness.signed_repository import Committed


@dataclass(slots=True)
class TrueBackup:
    """`began` and `ended` are true times; `dated` is what its document says of its commit.

    `checks` are the verdicts of deep verifications, the newest last.
    """

    made: Committed
    job_id: UUID
    parent: "TrueBackup | None"
    depth: int
    start: Lsn
    began: datetime
    ended: datetime
    dated: datetime
    damaged: bool = False
    checks: list[bool] = field(default_factory=list)
    drills: list[bool] = field(default_factory=list)

    @property
    def ref(self) -> BackupRef:
        return self.made.ref

    @property
    def kind(self) -> BackupKind:
        return self.ref.kind

    def chain(self) -> Iterator["TrueBackup"]:
        """Itself and all that it builds on."""
        link: TrueBackup | None = self
        while link is not None:
            yield link
            link = link.parent

    @property
    def found_damaged(self) -> bool:
        return bool(self.checks) and not self.checks[-1]

    @property
    def verified(self) -> bool:
        """By what was found out, not by what is true."""
        return bool(self.checks) and self.found_sound

    @property
    def sound(self) -> bool:
        return not any(link.damaged for link in self.chain())

    @property
    def found_sound(self) -> bool:
        """Nobody found it, or what it builds on, damaged."""
        return not any(link.found_damaged for link in self.chain())

    @property
    def good_full(self) -> bool:
        """As retention counts them."""
        drilled_badly = bool(self.drills) and not self.drills[-1]
        return self.kind is BackupKind.FULL and self.verified and not drilled_badly


@dataclass
class Truth:
    """`asked`: the jobs, by what a schedule asked for; more than one of a tick is one too many.

    `expired` are backups that a run of `expire` reported as gone. `proven`: when drills passed.
    """

    backups: dict[ClusterName, list[TrueBackup]] = field(default_factory=lambda: defaultdict(list))
    by_ref: dict[BackupRef, TrueBackup] = field(default_factory=dict)
    by_job: dict[UUID, TrueBackup] = field(default_factory=dict)
    proven: dict[ClusterName, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    asked: dict[tuple[str, ...], set[UUID]] = field(default_factory=lambda: defaultdict(set))
    newly_asked: list[tuple[str, ...]] = field(default_factory=list)
    expired: set[BackupRef] = field(default_factory=set)

    def committed(self, backup: TrueBackup) -> None:
        self.backups[backup.ref.cluster].append(backup)
        self.by_ref[backup.ref] = backup
        self.by_job[backup.job_id] = backup

    def standing(self, cluster: ClusterName) -> list[TrueBackup]:
        """Those that were not expired, in the order of their commits."""
        return [one for one in self.backups.get(cluster, ()) if one.ref not in self.expired]
