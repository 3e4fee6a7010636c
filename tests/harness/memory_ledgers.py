"""What a catalogue in memory keeps beside facts and jobs: WAL, findings, quarantine, restores."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any, assert_never
from uuid import UUID

from shared.catalogue.ports import RecordedFinding, SetAside
from shared.catalogue.restore_port import RestoreNotFound
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingScope
from shared.domain.findings import Finding, FindingChanges, fold_findings
from shared.domain.freshness import WalFreshness
from shared.domain.request_budget import Budget
from shared.domain.restore_request import Decision, RestoreRequest, RestoreState, RestoreVerdict
from shared.errors import RequestConflict
from shared.jobs.messages import RestoreJob
from shared.jobs.wal_events import WalConflictSeen, WalEvent, WalGapSeen, WalProgress
from shared.repository.wal_listing import ArchiveSnapshot
from tests.harness.memory_jobs import MemoryJobs, storable


class MemoryWal:
    """See shared.catalogue.ports.WalFacts for the contract; `newest_base` is with the facts."""

    def __init__(self) -> None:
        super().__init__()
        self._wal_events: dict[str, dict[tuple[str, str], WalEvent]] = defaultdict(dict)
        self._snapshots: dict[ClusterName, tuple[datetime, ArchiveSnapshot]] = {}
        self._freshness: dict[str, WalFreshness] = {}

    def record_wal_event(self, event: WalEvent, now: datetime) -> bool:
        kept = event if event.at <= now else event.model_copy(update={"at": now})
        weight = _weight(kept)
        events, key = self._wal_events[kept.cluster], (kept.kind, _object(kept))
        known = events.get(key)
        if known is not None and _weight(known) >= weight:
            return False
        events[key] = kept
        return True

    def wal_events(self, cluster: ClusterName) -> Sequence[WalEvent]:
        return [event for _, event in sorted(self._wal_events.get(cluster, {}).items(), key=_key)]

    def archive_snapshot(self, cluster: ClusterName) -> ArchiveSnapshot | None:
        known = self._snapshots.get(cluster)
        return known and known[1]

    def put_archive_snapshot(
        self, cluster: ClusterName, snapshot: ArchiveSnapshot, taken_at: datetime
    ) -> None:
        known = self._snapshots.get(cluster)
        if known is None or known[0] <= taken_at:
            self._snapshots[cluster] = (taken_at, snapshot)

    def record_freshness(self, seen: WalFreshness) -> None:
        known = self._freshness.get(seen.cluster)
        if known is None or known.at <= seen.at:
            self._freshness[seen.cluster] = seen

    def freshness(self, cluster: ClusterName) -> WalFreshness | None:
        return self._freshness.get(cluster)


class MemoryFindings:
    """See shared.catalogue.ports.FindingLedger for the contract."""

    def __init__(self) -> None:
        super().__init__()
        self._finding_numbers = count()
        self._open: dict[ClusterName, dict[tuple[str, str], tuple[int, RecordedFinding]]] = {}
        self._closed: list[tuple[int, RecordedFinding]] = []

    def settle_findings(
        self,
        cluster: ClusterName,
        scopes: Collection[FindingScope],
        found: Iterable[Finding],
        now: datetime,
    ) -> FindingChanges:
        known = self._open.setdefault(cluster, {})
        changes = fold_findings([one.finding for _, one in known.values()], found)
        old = {key for key, (_, one) in known.items() if one.opened_at <= now}
        for one in changes.opened:
            known[one.key] = (
                next(self._finding_numbers), RecordedFinding(cluster, one, now, None)
            )  # fmt: skip
        for one in changes.kept:
            number, recorded = known[one.key]
            known[one.key] = (number, replace(recorded, finding=one))
        closed = tuple(one for one in changes.closed if one.scope in scopes and one.key in old)
        for one in closed:
            number, recorded = known.pop(one.key)
            self._closed.append((number, replace(recorded, closed_at=now)))
        return FindingChanges(changes.opened, changes.kept, closed)

    def open_findings(
        self, cluster: ClusterName, found: Iterable[Finding], now: datetime
    ) -> FindingChanges:
        return self.settle_findings(cluster, (), found, now)

    def findings(
        self,
        cluster: ClusterName | None = None,
        *,
        closed_since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[RecordedFinding]:
        names = self._open if cluster is None else (cluster,)
        found = [one for name in names for one in self._open.get(name, {}).values()]
        if closed_since is not None:
            found += [
                one for one in self._closed
                if cluster in {None, one[1].cluster}
                and one[1].closed_at is not None and one[1].closed_at >= closed_since
            ]  # fmt: skip
        found.sort(key=lambda one: (one[1].opened_at, one[0]), reverse=True)
        return [recorded for _, recorded in found[:limit]]


class MemoryQuarantine:
    """See shared.catalogue.ports.Quarantine for the contract."""

    def __init__(self) -> None:
        super().__init__()
        self._aside: dict[tuple[str, str], SetAside] = {}

    def set_aside(self, name: str, code: str, fact: str, now: datetime) -> None:
        known = self._aside.get((name, code))
        first, times = (known.first_seen_at, known.times) if known else (now, 0)
        self._aside[name, code] = SetAside(name, code, fact, first, now, times + 1)

    def release(self, name: str) -> None:
        if self._aside:
            for key in [one for one in self._aside if one[0] == name]:
                del self._aside[key]

    def set_aside_codes(self) -> Mapping[str, str]:
        newest_last = sorted(self._aside.values(), key=lambda one: one.last_seen_at)
        return {one.name: one.code for one in newest_last}

    def set_aside_since(self, since: datetime, code: str) -> Sequence[SetAside]:
        found = [
            one for one in self._aside.values() if one.code == code and one.last_seen_at >= since
        ]
        found.sort(key=lambda one: one.name)
        return sorted(found, key=lambda one: one.last_seen_at, reverse=True)


class MemoryRestores(MemoryJobs):
    """See shared.catalogue.restore_port for the contract."""

    def __init__(self) -> None:
        super().__init__()
        self._restores: dict[UUID, RestoreRequest] = {}

    def ask_restore(self, request: RestoreRequest) -> RestoreRequest:
        known = self._restores.setdefault(request.id, request)
        if not known.asks_the_same(request):
            raise RequestConflict(f"restore {request.id} was made by another request")
        return known

    def decide_restore(
        self, request_id: UUID, verdict: RestoreVerdict, traceparent: str | None = None
    ) -> RestoreRequest:
        known = self.restore_request(request_id)
        decided = known.decided(verdict)
        if decided is not known and verdict.decision is Decision.APPROVE:
            job = _restore_job(decided, verdict)
            self.request(job.model_copy(update={"traceparent": traceparent}), verdict.at)
        self._restores[request_id] = decided
        return decided

    def restore_request(self, request_id: UUID) -> RestoreRequest:
        if request_id not in self._restores:
            raise RestoreNotFound(f"there is no restore {request_id}")
        return self._restores[request_id]

    def restore_requests(
        self,
        cluster: ClusterName | None = None,
        state: RestoreState | None = None,
        *,
        now: datetime,
        limit: int,
        before: UUID | None = None,
    ) -> Sequence[RestoreRequest]:
        found = [
            one for one in self._restores.values()
            if cluster in {None, one.cluster} and state in {None, one.state_at(now)}
        ]  # fmt: skip
        if before is not None:
            last = self._restores.get(before)
            found = [one for one in found if last and _asked(one) < _asked(last)]
        return sorted(found, key=_asked, reverse=True)[:limit]

    def overdue_restores(self, now: datetime) -> Sequence[RestoreRequest]:
        waiting = [one for one in self._restores.values() if one.verdict is None]
        waiting.sort(key=lambda one: one.lapses_at)
        return [one for one in waiting if one.lapses_at <= now]


class MemoryBudgets:
    """See shared.catalogue.budget_port for the contract."""

    def __init__(self) -> None:
        super().__init__()
        self._whole_at: dict[str, datetime] = {}

    def spend(self, budgets: Sequence[Budget], now: datetime) -> None:
        spent = {one.owner: one.spent(self._whole_at.get(one.owner, now), now) for one in budgets}
        for one in budgets:
            one.demand_room(spent[one.owner], now)
        self._whole_at |= spent

    def forget_whole_budgets(self, now: datetime) -> None:
        self._whole_at = {one: at for one, at in self._whole_at.items() if at > now}


def _restore_job(request: RestoreRequest, verdict: RestoreVerdict) -> RestoreJob:
    return RestoreJob(
        job_id=request.id,
        cluster=request.cluster,
        target=request.target,
        label=request.label,
        to=request.to,
        requested_by=request.requested_by.id,
        approved_by=verdict.by.id,
    )


def _asked(request: RestoreRequest) -> tuple[datetime, UUID]:
    return request.requested_at, request.id


def _object(event: WalEvent) -> str:
    """Of events with one object only the newest says anything."""
    match event:
        case WalProgress():
            return event.writer
        case WalConflictSeen():
            return event.name
        case WalGapSeen():
            return str(event.gap())
        case _:
            assert_never(event)


def _weight(event: WalEvent) -> tuple[datetime, str]:
    return event.at, storable(event.model_dump_json())


def _key(item: tuple[Any, WalEvent]) -> Any:
    return item[0]
