"""The catalogue in memory, for simulations of whole fleets: quick, and forgotten afterwards.

It passes the contract suites of the catalogue in PostgreSQL, tests/contract/test_catalogue*.py, but
for what only a database can promise. Every operation is one transaction, because one runs at a
time.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import wraps
from threading import RLock
from typing import Any, NamedTuple

from shared.catalogue.fleet_port import FleetMember
from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.backup_freshness import BackupAges
from shared.domain.cluster import ClusterName
from shared.domain.freshness import BackupBase
from shared.domain.kept_backup import FUTURE
from shared.domain.lsn import Lsn
from shared.domain.replication import (
    GeoReplication,
    PendingBackup,
    ReplicationState,
    is_safe,
)
from shared.domain.rto_prediction import DRILLS_CONSIDERED, DrillTimes
from shared.domain.storage_use import StorageSample
from tests.harness.memory_agenda import MemoryAgenda
from tests.harness.memory_facts import Values
from tests.harness.memory_ledgers import (
    MemoryBudgets,
    MemoryFindings,
    MemoryQuarantine,
    MemoryRestores,
    MemoryWal,
)


class WalCopy(NamedTuple):
    """A row of the table geo_wal."""

    seen_at: datetime
    seen_through: datetime
    safe_through: datetime | None


class _Fleet(MemoryAgenda, MemoryWal):
    """See fleet_port, geo_port, and `newest_base` of shared.catalogue.ports.WalFacts."""

    def __init__(self) -> None:
        super().__init__()
        self._first_seen: dict[ClusterName, datetime] = {}
        self._samples: dict[ClusterName, dict[date, int]] = {}
        self._last_sync: datetime | None = None
        self._wal_copies: dict[ClusterName, WalCopy] = {}

    def newest_base(self, cluster: ClusterName) -> BackupBase | None:
        for row in reversed(self._of(cluster)):
            facts = self._facts(row)
            damaged = facts.verification_failed_at is not None and not facts.verified
            if damaged or facts.ancestor_failed_at is not None:
                continue
            lsn = Lsn.parse(row["stop_lsn"] if row["wal_included"] else row["start_lsn"])
            return BackupBase(row["timeline"], lsn, row["started_at"], row["wal_included"])
        return None

    def fleet(
        self, clusters: Iterable[ClusterName], now: datetime
    ) -> Mapping[ClusterName, FleetMember]:
        return {cluster: self._member(cluster, now) for cluster in clusters}

    def put_storage_samples(self, used: Mapping[ClusterName, int], day: date) -> None:
        for cluster, size in used.items():
            known = self._samples.get(cluster, {})
            recent = {one: used for one, used in known.items() if one >= day - timedelta(days=400)}
            self._samples[cluster] = {**recent, day: size}

    def storage_samples(
        self, clusters: Iterable[ClusterName], since: date
    ) -> Mapping[ClusterName, Sequence[StorageSample]]:
        found = {}
        for cluster in clusters:
            days = sorted(self._samples.get(cluster, {}).items())
            recent = [StorageSample(day, used) for day, used in days if day >= since]
            if recent:
                found[cluster] = recent
        return found

    def note_replication(self, seen: GeoReplication, now: datetime) -> datetime | None:
        del now
        if seen.state is ReplicationState.BOOTSTRAP:
            self._geo_safe.clear()
            self._wal_copies.clear()
            self._last_sync = None
        elif seen.last_sync_time is not None:
            self._last_sync = max(seen.last_sync_time, self._last_sync or seen.last_sync_time)
        return self._last_sync

    def last_sync_time(self) -> datetime | None:
        return self._last_sync

    def pending_replication(self) -> Sequence[PendingBackup]:
        waiting = [row for row in self._of(None) if _key(row) not in self._geo_safe]
        waiting.sort(key=lambda row: (row["label"], row["cluster"]))
        return [self._pending(row) for row in waiting]

    def mark_geo_safe(self, backups: Collection[PendingBackup], now: datetime) -> None:
        for one in backups:
            if one.label.text in self._labels.get(one.cluster, ()):
                self._geo_safe.setdefault((one.cluster, one.label.text), now)

    def note_wal_copies(self, last_sync_time: datetime) -> None:
        for cluster, seen in self._freshness.items():
            known = self._wal_copies.get(ClusterName(cluster))
            passed = known is None or is_safe(known.seen_at, last_sync_time)
            if seen.protected_at is not None and passed:
                safe = known and known.seen_through
                copy = WalCopy(seen.at, seen.protected_at, safe)
                self._wal_copies[ClusterName(cluster)] = copy

    def wal_safe_through(self, cluster: ClusterName) -> datetime | None:
        known = self._wal_copies.get(cluster)
        return known and known.safe_through

    def _pending(self, row: Values) -> PendingBackup:
        parent = row["parent_label"]
        return PendingBackup(
            cluster=ClusterName(row["cluster"]),
            label=BackupLabel(row["label"]),
            committed_at=row["committed_at"],
            parent=parent and BackupLabel(parent),
            parent_safe=parent is None or (row["cluster"], parent) in self._geo_safe,
        )

    def _member(self, cluster: ClusterName, now: datetime) -> FleetMember:
        stored, wal = self._of(cluster), self.freshness(cluster)
        rows = [row for row in stored if row["committed_at"] <= now + FUTURE]
        fulls = (row["plain_bytes"] for row in reversed(rows) if row["kind"] == BackupKind.FULL)
        snapshot = self.archive_snapshot(cluster)
        newest = rows[-1] if rows else None
        safe = (row["committed_at"] for row in reversed(rows) if _key(row) in self._geo_safe)
        replayed = 0
        if newest and wal and wal.through_lsn and wal.timeline == newest["timeline"]:
            replayed = max(0, wal.through_lsn - Lsn.parse(newest["start_lsn"]))
        return FleetMember(
            ages=self._ages(cluster, rows, now),
            stored_bytes=sum(row["stored_bytes"] for row in stored),
            wal_bytes=sum(one.stored_bytes for one in snapshot.ranges) if snapshot else 0,
            restored_bytes=next(fulls, 0),
            replayed_bytes=replayed,
            wal=wal,
            geo_safe_at=next(safe, None),
            drills=self._drill_times(cluster, now),
        )

    def _ages(self, cluster: ClusterName, rows: Sequence[Values], now: datetime) -> BackupAges:
        good = (row["committed_at"] for row in reversed(rows) if self._facts(row).verified)
        proven = (row["created_at"] for row in self._proven(cluster, now))
        return BackupAges(
            cluster=cluster,
            first_seen=self._first_seen.setdefault(cluster, now),
            committed_at=rows[-1]["committed_at"] if rows else None,
            verified_at=next(good, None),
            proven_at=max(proven, default=None),
        )

    def _proven(self, cluster: ClusterName, now: datetime) -> Iterator[Values]:
        for row in self._drills.get(cluster, ()):
            if row["verdict"] == "proven" and row["created_at"] <= now + FUTURE:
                yield row

    def _drill_times(self, cluster: ClusterName, now: datetime) -> tuple[DrillTimes, ...]:
        judged = sorted(self._proven(cluster, now), key=_by_id)
        judged.sort(key=lambda row: row["created_at"], reverse=True)
        return tuple(
            DrillTimes(
                at=row["created_at"],
                restored_bytes=row["report"].get("restored_bytes", 0),
                replayed_bytes=row["report"].get("replayed_bytes", 0),
                phases=row["report"].get("phases_ms", {}),
                rto_ms=row["rto_ms"],
            )
            for row in judged[:DRILLS_CONSIDERED]
        )


def _one_at_a_time(catalogue: type["MemoryCatalogue"]) -> type["MemoryCatalogue"]:
    """Each operation waits for the one before it, as transactions that touch the same rows do."""

    def alone(operation: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(operation)
        def run(self: "MemoryCatalogue", *args: Any, **kwargs: Any) -> Any:
            with self.lock:
                return operation(self, *args, **kwargs)

        return run

    for name in dir(catalogue):
        operation = getattr(catalogue, name)
        if not name.startswith("_") and callable(operation):
            setattr(catalogue, name, alone(operation))
    return catalogue


@_one_at_a_time
class MemoryCatalogue(_Fleet, MemoryFindings, MemoryQuarantine, MemoryBudgets, MemoryRestores):
    """See shared.catalogue.ports for the contract."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = RLock()

    def check(self) -> None:
        """It answers."""


def _key(row: Values) -> tuple[str, str]:
    return row["cluster"], row["label"]


def _by_id(row: Values) -> str:
    return str(row["id"])
