"""Invariants of what was promised: it is kept, or a finding says why not; and only then."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from functions.freshness_watch import promises_of
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode
from tests.simulation.account import Account
from tests.simulation.engine import hours
from tests.simulation.repository_rules import archived
from tests.simulation.servers import SEGMENT
from tests.simulation.truth import TrueBackup
from tests.simulation.world import World

_GUARDS: Final = frozenset(
    {FindingCode.LIFECYCLE_WOULD_DELETE_BACKUP, FindingCode.LIFECYCLE_WOULD_DELETE_PARENT}
)
Say = Iterator[str]


@dataclass(frozen=True, slots=True)
class PromiseRules:
    """By the truth, not by the catalogue. Each gives a sentence for each time that it is broken."""

    _world: World
    _account: Account

    def of_promises(self) -> Say:
        """A promise is kept, or a finding says why not; and none stays open without a reason."""
        world, now = self._world, self._world.engine.now
        for cluster in world.clusters:
            open_now = {one.finding.code for one in world.catalogue.findings(cluster)}
            for code, broken in self._broken_promises(cluster, now):
                if broken and code not in open_now:
                    yield f"P {cluster} breaks a promise, and no finding says {code}"
                if not broken and code in open_now:
                    yield f"P {cluster} keeps its promise, and a finding says {code}"

    def _broken_promises(
        self, cluster: ClusterName, now: datetime
    ) -> Iterator[tuple[FindingCode, bool]]:
        world = self._world
        promises = promises_of(world.settings.cluster_named(cluster))
        first = world.catalogue.fleet([cluster], now)[cluster].ages.first_seen
        latest = now + hours(1)
        standing = [one for one in world.truth.standing(cluster) if one.dated <= latest]
        standing.sort(key=_by_label)
        verified = [one.dated for one in standing if one.verified]
        proven = [at for at in world.truth.proven[cluster] if at <= latest]
        for code, times, allowed in (
            (FindingCode.BACKUP_OVERDUE, [one.dated for one in standing], promises.committed),
            (FindingCode.VERIFICATION_OVERDUE, verified, promises.verified),
            (FindingCode.PROOF_OVERDUE, sorted(proven), promises.proven),
        ):
            if allowed is not None:
                yield code, now - (times[-1] if times else first) > allowed
        yield from self._broken_wal(cluster, now)

    def _broken_wal(
        self, cluster: ClusterName, now: datetime
    ) -> Iterator[tuple[FindingCode, bool]]:
        """Where it is beyond doubt."""
        server = self._world.servers[cluster]
        standing = sorted(self._world.truth.standing(cluster), key=_by_label)
        sound = [one for one in standing if one.found_sound]
        if not sound or server.archived_at is None:
            return
        holes = [lost for lost in server.lost if lost.end > sound[-1].start]
        if server.archived_at == now:
            yield FindingCode.UNREPORTED, False
            yield FindingCode.BEHIND, bool(holes)
        protected = max(server.archived_at, *(one.dated for one in standing))
        if now - protected > hours(1):
            yield FindingCode.BEHIND, True
        floor = self._world.catalogue.wal_starts(cluster).get(1, 0) // SEGMENT
        if not any(lost.number >= floor for lost in server.lost):
            yield FindingCode.GAP, False
        elif self._has_gap(cluster, floor) and now - server.lost[-1].ended > hours(24):
            yield FindingCode.GAP, True

    def _has_gap(self, cluster: ClusterName, floor: int) -> bool:
        """Between two archived segments, above what is only kept for single backups."""
        numbers = [number for number in archived(self._world, cluster) if number >= floor]
        return bool(numbers) and numbers[-1] - numbers[0] + 1 > len(numbers)

    def of_account(self) -> Say:
        """Azure would delete what is needed: then somebody is told before it does."""
        codes = {one.finding.code for one in self._world.catalogue.findings()}
        changed = self._account.changed_at
        settled = changed is None or self._world.engine.now - changed > hours(0.5)
        guards = codes & _GUARDS
        if settled and self._account.rules and not guards and self._world.truth.by_ref:
            yield "P a lifecycle rule would delete what is needed, and no finding says so"
        if settled and not self._account.rules and guards:
            yield f"P no lifecycle rule is there, and findings say {sorted(guards)}"
        stalled = self._account.stalled_for
        if stalled > hours(0.5) and FindingCode.GEO_BEHIND not in codes:
            yield "P the second region is behind, and no finding says so"
        if not stalled and FindingCode.GEO_BEHIND in codes:
            yield "P the second region is not behind, and a finding says it is"


def _by_label(backup: TrueBackup) -> str:
    return backup.ref.label.text
