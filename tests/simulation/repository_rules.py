"""Invariants of the repository: what was committed stays, stands whole, and is what is known."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.catalogue.rebuild import rebuild
from shared.domain.cluster import ClusterName
from shared.repository import layout
from shared.repository.layout import BackupRef
from shared.repository.reports import is_report
from tests.harness.memory_catalogue import MemoryCatalogue
from tests.simulation.engine import days
from tests.simulation.servers import SEGMENT
from tests.simulation.truth import TrueBackup
from tests.simulation.world import World

# The volume, two sealed objects and the document.
_PARTS: Final = 4
Say = Iterator[str]


@dataclass(frozen=True, slots=True)
class Reach:
    """Of one cluster before and after a run of `expire`: the good full backups with log up to now,
    and since when every instant can be restored.
    """

    floors: frozenset[BackupRef]
    since: datetime | None
    documents: frozenset[BackupRef]


@dataclass(frozen=True, slots=True)
class RepositoryRules:
    """Each rule gives a sentence for each time that it is broken."""

    _world: World

    def after_expiry(self, cluster: ClusterName, before: Reach, now: datetime) -> Say:
        """I4: whatever the run did, and wherever it died."""
        after = self.reach(cluster)
        gone = before.documents - after.documents
        self._world.truth.expired |= gone
        wanted = now - days(self._world.settings.cluster_named(cluster).retention.wal_days)
        yield from self._of_floor(cluster, before, after)
        yield from self._of_window(cluster, before, after, wanted)
        yield from self._of_chains(cluster)
        for ref in gone - set(self._tombstones(cluster)):
            yield f"I4 {ref} was deleted without a tombstone"

    def of_parts(self) -> Say:
        """I1: a document that is there has all its parts; none that was committed is missing."""
        truth = self._world.truth
        for cluster in self._world.clusters:
            there = set(self._documents(cluster))
            for backup in truth.standing(cluster):
                if backup.ref not in there:
                    yield f"I1 {backup.ref} was committed and is gone, and nothing expired it"
                    continue
                prefix = backup.ref.blob("").path
                parts = sum(1 for _ in self._world.store.list(backup.kind.value, prefix))
                if parts != _PARTS:
                    yield f"I1 {backup.ref} has {parts} blobs instead of {_PARTS}"
            for ref in there - {one.ref for one in truth.standing(cluster)}:
                yield f"I1 {ref} is there, and nobody committed it"

    def of_names(self) -> Say:
        """I5, by names: after a reconciliation the catalogue knows what is there, and no more."""
        known = self._world.catalogue.known_blobs()
        there = {
            info.name
            for container in ("full", "incremental", layout.EVIDENCE)
            for info in self._world.store.list(container)
            if layout.is_backup_document(info.name) or is_report(info.name)
        }
        for name in sorted(there - known)[:3]:
            yield f"I5 {name} is not in the catalogue, a day's reconciliation later"
        for name in sorted(known - there)[:3]:
            yield f"I5 {name} is in the catalogue, and no longer in the repository"

    def of_content(self) -> Say:
        """I5: every row is as the repository says."""
        fresh = MemoryCatalogue()
        pinned = self._world.repository.pinned
        rebuilt = rebuild(fresh, self._world.store, pinned, self._world.engine.now)
        if rebuilt.refused:
            yield f"I5 {len(rebuilt.refused)} documents are not believed: {rebuilt.refused[0]}"
        live, anew = self._world.catalogue.content(), fresh.content()
        for table in anew:
            if list(live[table]) != list(anew[table]):
                yield f"I5 table {table} differs from what the repository says"

    def _of_floor(self, cluster: ClusterName, before: Reach, after: Reach) -> Say:
        if before.floors and not after.floors:
            yield f"I4 {cluster} had a good full backup with continuous log, and has none any more"
        if not before.floors and before.documents != after.documents:
            yield f"I4 {cluster} had no good full backup, and lost others"

    def _of_window(
        self, cluster: ClusterName, before: Reach, after: Reach, wanted: datetime
    ) -> Say:
        """The window does not shrink, but for what lies further back than is promised."""
        if before.since is None:
            return
        if after.since is None or after.since > max(before.since, wanted):
            yield (
                f"I4 {cluster} could be restored to {before.since:%F %T} and now only to "
                f"{after.since}, promised is {wanted:%F %T}"
            )

    def _of_chains(self, cluster: ClusterName) -> Say:
        standing = {one.ref for one in self._world.truth.standing(cluster)}
        for backup in self._world.truth.standing(cluster):
            missing = [link.ref for link in backup.chain() if link.ref not in standing]
            if missing:
                yield f"I4 {backup.ref} stands on {missing[0]}, which is gone"

    def reach(self, cluster: ClusterName) -> Reach:
        documents = frozenset(self._documents(cluster))
        numbers = archived(self._world, cluster)
        backups = [one for one in self._world.truth.backups[cluster] if one.ref in documents]
        floors = [one for one in backups if one.good_full and _continuous(numbers, one)]
        return Reach(
            frozenset(one.ref for one in floors),
            min((one.ended for one in floors), default=None),
            documents,
        )

    def _documents(self, cluster: ClusterName) -> Iterator[BackupRef]:
        for container in ("full", "incremental"):
            for info in self._world.store.list(container, layout.backups_prefix(cluster)):
                if layout.is_backup_document(info.name):
                    yield layout.backup_of_document(info.name)

    def _tombstones(self, cluster: ClusterName) -> Iterator[BackupRef]:
        for info in self._world.store.list(layout.EVIDENCE, layout.tombstones_prefix(cluster)):
            yield layout.parse_tombstone(info.name)[0]


def archived(world: World, cluster: ClusterName) -> list[int]:
    """Numbers of the segments, in order."""
    listed = world.store.list(layout.WAL, layout.wal_prefix(cluster, 1))
    names = (info.name.path.rpartition("/")[2] for info in listed)
    return [int(name[8:16], 16) * 256 + int(name[16:24], 16) for name in names]


def _continuous(numbers: Sequence[int], backup: TrueBackup) -> bool:
    """Whether the log is archived from its start to the newest segment."""
    first = backup.start // SEGMENT
    place = bisect_left(numbers, first)
    if place == len(numbers):
        return True
    return numbers[place] == first and len(numbers) - place == numbers[-1] - first + 1
