"""The port of the guard: chains of many clusters at once, and nothing else of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from shared.domain.cluster import ClusterName
from shared.domain.needed_until import GuardedBackup


class GuardFacts(Protocol):
    """Lean, because a fleet's every backup is looked at each hour."""

    def guarded_backups(
        self, clusters: Collection[ClusterName]
    ) -> Mapping[ClusterName, Sequence[GuardedBackup]]:
        """All backups of these clusters, oldest first; clusters without any are left out."""
        ...
