"""What the storage account does by itself, and how far its copy in the second region is."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.domain.lifecycle_rules import (
    AccountProtection,
    AgeCondition,
    ContainerPolicy,
    LifecycleAction,
    LifecycleRule,
)
from shared.domain.replication import GeoReplication, ReplicationState
from tests.simulation.engine import Engine, minutes

# Would delete what every policy of the fleet still needs. Azure takes up to two days to act upon a
# new policy (storage/blobs/lifecycle-management-overview); by then it is gone again.
CARELESS: Final = LifecycleRule(
    "tidy-up", {LifecycleAction.DELETE: AgeCondition(modification=5)}, prefixes=("full/",)
)


@dataclass
class Account:
    """`rules` as an administrator leaves them; `stalled_since`: nothing is copied any more."""

    engine: Engine
    rules: tuple[LifecycleRule, ...] = ()
    stalled_since: datetime | None = None
    changed_at: datetime | None = None

    def put(self, *rules: LifecycleRule) -> None:
        self.rules, self.changed_at = rules, self.engine.now

    def lifecycle_rules(self) -> tuple[LifecycleRule, ...]:
        return self.rules

    def container_policy(self, container: str) -> ContainerPolicy:
        """As in a development account: nobody is hindered who really wants to delete."""
        del container
        return ContainerPolicy(immutability_days=30)

    def protection(self) -> AccountProtection:
        return AccountProtection(versioning=True)

    def read(self) -> GeoReplication:
        """Of its secondary."""
        reached = (self.stalled_since or self.engine.now) - minutes(3)
        return GeoReplication(ReplicationState.LIVE, reached.replace(microsecond=0))

    @property
    def stalled_for(self) -> timedelta:
        return timedelta() if self.stalled_since is None else self.engine.now - self.stalled_since
