"""The catalogue in PostgreSQL: every operation one transaction, on a connection of its own.

A function app runs few operations a minute from many short-lived instances, so connections are
not kept. The SQL lies with its port: repository_index, job_ledger, wal_facts, and here the
quarantine.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from uuid import UUID

from shared.catalogue import (
    agenda_table,
    finding_ledger,
    fleet_facts,
    geo_facts,
    guard_facts,
    job_ledger,
    job_recovery,
    migrate,
    repository_index,
    request_budgets,
    restore_requests,
    wal_facts,
)
from shared.catalogue.agenda_port import NewestBackups, ServedTick
from shared.catalogue.fleet_port import FleetMember
from shared.catalogue.ports import (
    CataloguedBackup,
    Fact,
    JobRecord,
    RecordedFinding,
    SetAside,
)
from shared.catalogue.postgres_session import Login, Session, transact
from shared.domain.agenda import AgendaChanges, AgendaEntry, Key
from shared.domain.cluster import ClusterName
from shared.domain.dispatch_plan import ActiveJob
from shared.domain.finding_rules import FindingScope
from shared.domain.findings import Finding, FindingChanges
from shared.domain.freshness import BackupBase, WalFreshness
from shared.domain.job import JobReport, JobState
from shared.domain.lsn import Lsn
from shared.domain.needed_until import GuardedBackup
from shared.domain.replication import GeoReplication, PendingBackup
from shared.domain.request_budget import Budget
from shared.domain.restore_request import RestoreRequest, RestoreState, RestoreVerdict
from shared.domain.storage_use import StorageSample
from shared.jobs.messages import AnyJob, JobEvent
from shared.jobs.wal_events import WalEvent
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.layout import BackupRef
from shared.repository.wal_listing import ArchiveSnapshot

_SET_ASIDE = """
    INSERT INTO quarantined (object, code, fact, first_seen_at, last_seen_at)
    VALUES (%(object)s, %(code)s, %(fact)s, %(now)s, %(now)s)
    ON CONFLICT (object, code) DO UPDATE
    SET fact = excluded.fact, last_seen_at = excluded.last_seen_at, times = quarantined.times + 1
"""
_ASIDE_SINCE = """
    SELECT object, code, fact, first_seen_at, last_seen_at, times FROM quarantined
    WHERE code = %s AND last_seen_at >= %s
    ORDER BY last_seen_at DESC, object
"""


class PostgresCatalogue:
    """See shared.catalogue.ports for the contract."""

    def __init__(self, login: Login) -> None:
        self._transact = partial(transact, login)

    def check(self) -> None:
        self._transact(migrate.check_schema)

    def record(self, fact: Fact, now: datetime) -> bool:
        return self._transact(lambda session: repository_index.record(session, fact, now))

    def replace(self, facts: Iterable[Fact], now: datetime) -> None:
        kept = list(facts)  # the transaction may have to run again
        self._transact(lambda session: repository_index.replace(session, kept, now))

    def backups(
        self, cluster: ClusterName | None = None, *, limit: int, before: str | None = None
    ) -> Sequence[CataloguedBackup]:
        return self._transact(
            lambda session: repository_index.backups(session, cluster, limit, before)
        )

    def backup(self, ref: BackupRef) -> CataloguedBackup:
        return self._transact(lambda session: repository_index.backup(session, ref))

    def known_blobs(self) -> set[BlobName]:
        return self._transact(repository_index.known_blobs)

    def never_verified(self, committed_before: datetime) -> Sequence[CataloguedBackup]:
        return self._transact(
            lambda session: repository_index.never_verified(session, committed_before)
        )

    def drill_report(self, cluster: ClusterName, report_id: str) -> DrillReport | None:
        return self._transact(
            lambda session: repository_index.drill_report(session, cluster, report_id)
        )

    def forget(self, backups: Mapping[BackupRef, str]) -> None:
        self._transact(lambda session: repository_index.forget(session, backups))

    def lost_predecessors(self) -> Sequence[tuple[BackupRef, BackupRef]]:
        return self._transact(repository_index.lost_predecessors)

    def lost_backups(self, told_since: datetime) -> Sequence[BackupRef]:
        return self._transact(lambda session: repository_index.lost_backups(session, told_since))

    def differing_columns(self, fact: Fact) -> Sequence[str]:
        return self._transact(lambda session: repository_index.differing_columns(session, fact))

    def newest_expiry(self, cluster: ClusterName) -> ExpiryReport | None:
        return self._transact(lambda session: repository_index.newest_expiry(session, cluster))

    def wal_starts(self, cluster: ClusterName) -> Mapping[int, Lsn]:
        return self._transact(lambda session: repository_index.wal_starts(session, cluster))

    def content(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        return self._transact(repository_index.content)

    def request(self, job: AnyJob, now: datetime) -> bool:
        return self._transact(lambda session: job_ledger.request(session, job, now))

    def agenda_digest(self) -> str | None:
        return self._transact(agenda_table.source_digest)

    def agenda(self, cluster: ClusterName | None = None) -> Sequence[AgendaEntry]:
        return self._transact(lambda session: agenda_table.entries(session, cluster))

    def change_agenda(self, changes: AgendaChanges, digest: str) -> None:
        self._transact(lambda session: agenda_table.change(session, changes, digest))

    def due_entries(self, now: datetime, limit: int) -> Sequence[AgendaEntry]:
        return self._transact(lambda session: agenda_table.due_entries(session, now, limit))

    def often_skipped(self, times: int) -> Sequence[AgendaEntry]:
        return self._transact(lambda session: agenda_table.often_skipped(session, times))

    def fleet(
        self, clusters: Iterable[ClusterName], now: datetime
    ) -> Mapping[ClusterName, FleetMember]:
        wanted = list(clusters)
        return self._transact(lambda session: fleet_facts.fleet(session, wanted, now))

    def put_storage_samples(self, used: Mapping[ClusterName, int], day: date) -> None:
        self._transact(lambda session: fleet_facts.put_samples(session, used, day))

    def storage_samples(
        self, clusters: Iterable[ClusterName], since: date
    ) -> Mapping[ClusterName, Sequence[StorageSample]]:
        wanted = list(clusters)
        return self._transact(lambda session: fleet_facts.samples(session, wanted, since))

    def active_jobs(self) -> Sequence[ActiveJob]:
        return self._transact(agenda_table.active_jobs)

    def serve(self, served: Sequence[ServedTick], now: datetime) -> set[Key]:
        return self._transact(lambda session: agenda_table.serve(session, served, now))

    def newest_backups(self, clusters: Iterable[ClusterName]) -> Sequence[NewestBackups]:
        wanted = list(clusters)
        return self._transact(lambda session: agenda_table.newest_backups(session, wanted))

    def claim_unsent(self, now: datetime) -> Sequence[AnyJob]:
        return self._transact(lambda session: job_ledger.claim_unsent(session, now))

    def mark_sent(self, job_id: UUID, now: datetime) -> None:
        self._transact(lambda session: job_ledger.mark_sent(session, job_id, now))

    def send_again(self, job_id: UUID, *, quiet_since: datetime) -> bool:
        return self._transact(lambda session: job_ledger.send_again(session, job_id, quiet_since))

    def record_event(self, event: JobEvent, now: datetime) -> JobRecord:
        return self._transact(lambda session: job_ledger.record_event(session, event, now))

    def job(self, job_id: UUID) -> JobRecord:
        return self._transact(lambda session: job_ledger.job(session, job_id))

    def jobs_of(self, job_ids: Collection[UUID]) -> Mapping[UUID, JobRecord]:
        return self._transact(lambda session: job_ledger.jobs_of(session, job_ids))

    def jobs(
        self,
        cluster: ClusterName | None = None,
        state: JobState | None = None,
        *,
        limit: int,
        before: UUID | None = None,
    ) -> Sequence[JobRecord]:
        return self._transact(
            lambda session: job_ledger.jobs(session, cluster, state, limit, before)
        )

    def running_jobs(self) -> Sequence[JobRecord]:
        return self._transact(job_ledger.running_jobs)

    def job_reports(self, job_id: UUID) -> Sequence[JobReport]:
        return self._transact(lambda session: job_ledger.job_reports(session, job_id))

    def listen(self, now: datetime, *, hears: bool) -> datetime:
        return self._transact(lambda session: job_recovery.listen(session, now, hears=hears))

    def silent_jobs(self, received_before: datetime) -> Sequence[JobRecord]:
        return self._transact(lambda session: job_recovery.silent_jobs(session, received_before))

    def never_taken(self, sent_before: datetime) -> Sequence[JobRecord]:
        return self._transact(lambda session: job_recovery.never_taken(session, sent_before))

    def give_up(
        self, end: JobEvent, retry: AnyJob | None, *, quiet_since: datetime, now: datetime
    ) -> bool:
        return self._transact(
            lambda session: job_recovery.give_up(session, end, retry, quiet_since, now)
        )

    def failed_jobs(self) -> Sequence[JobRecord]:
        return self._transact(job_recovery.failed_jobs)

    def prune_jobs(self, before: datetime) -> int:
        return self._transact(lambda session: job_recovery.prune_jobs(session, before))

    def record_wal_event(self, event: WalEvent, now: datetime) -> bool:
        return self._transact(lambda session: wal_facts.record_event(session, event, now))

    def wal_events(self, cluster: ClusterName) -> Sequence[WalEvent]:
        return self._transact(lambda session: wal_facts.events(session, cluster))

    def archive_snapshot(self, cluster: ClusterName) -> ArchiveSnapshot | None:
        return self._transact(lambda session: wal_facts.snapshot(session, cluster))

    def put_archive_snapshot(
        self, cluster: ClusterName, snapshot: ArchiveSnapshot, taken_at: datetime
    ) -> None:
        self._transact(lambda session: wal_facts.put_snapshot(session, cluster, snapshot, taken_at))

    def newest_base(self, cluster: ClusterName) -> BackupBase | None:
        return self._transact(lambda session: wal_facts.newest_base(session, cluster))

    def record_freshness(self, seen: WalFreshness) -> None:
        self._transact(lambda session: wal_facts.record_freshness(session, seen))

    def freshness(self, cluster: ClusterName) -> WalFreshness | None:
        return self._transact(lambda session: wal_facts.freshness(session, cluster))

    def settle_findings(
        self,
        cluster: ClusterName,
        scopes: Collection[FindingScope],
        found: Iterable[Finding],
        now: datetime,
    ) -> FindingChanges:
        kept = list(found)  # the transaction may have to run again
        return self._transact(
            lambda session: finding_ledger.settle(session, cluster, kept, now, close=scopes)
        )

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
        return self._transact(
            lambda session: finding_ledger.findings(session, cluster, closed_since, limit)
        )

    def ask_restore(self, request: RestoreRequest) -> RestoreRequest:
        return self._transact(lambda session: restore_requests.ask(session, request))

    def decide_restore(
        self, request_id: UUID, verdict: RestoreVerdict, traceparent: str | None = None
    ) -> RestoreRequest:
        return self._transact(
            lambda session: restore_requests.decide(session, request_id, verdict, traceparent)
        )

    def restore_request(self, request_id: UUID) -> RestoreRequest:
        return self._transact(lambda session: restore_requests.one(session, request_id))

    def restore_requests(
        self,
        cluster: ClusterName | None = None,
        state: RestoreState | None = None,
        *,
        now: datetime,
        limit: int,
        before: UUID | None = None,
    ) -> Sequence[RestoreRequest]:
        return self._transact(
            lambda session: restore_requests.listed(session, cluster, state, now, limit, before)
        )

    def overdue_restores(self, now: datetime) -> Sequence[RestoreRequest]:
        return self._transact(lambda session: restore_requests.overdue(session, now))

    def spend(self, budgets: Sequence[Budget], now: datetime) -> None:
        self._transact(lambda session: request_budgets.spend(session, budgets, now))

    def forget_whole_budgets(self, now: datetime) -> None:
        self._transact(lambda session: request_budgets.forget_whole(session, now))

    def guarded_backups(
        self, clusters: Collection[ClusterName]
    ) -> Mapping[ClusterName, Sequence[GuardedBackup]]:
        return self._transact(lambda session: guard_facts.guarded_backups(session, clusters))

    def note_replication(self, seen: GeoReplication, now: datetime) -> datetime | None:
        return self._transact(lambda session: geo_facts.note(session, seen, now))

    def last_sync_time(self) -> datetime | None:
        return self._transact(geo_facts.last_sync_time)

    def pending_replication(self) -> Sequence[PendingBackup]:
        return self._transact(geo_facts.pending)

    def mark_geo_safe(self, backups: Collection[PendingBackup], now: datetime) -> None:
        self._transact(lambda session: geo_facts.mark(session, backups, now))

    def note_wal_copies(self, last_sync_time: datetime) -> None:
        self._transact(lambda session: geo_facts.note_wal(session, last_sync_time))

    def wal_safe_through(self, cluster: ClusterName) -> datetime | None:
        return self._transact(lambda session: geo_facts.wal_safe_through(session, cluster))

    def set_aside(self, name: str, code: str, fact: str, now: datetime) -> None:
        values = {"object": name, "code": code, "fact": fact, "now": now}
        self._transact(lambda session: session.execute(_SET_ASIDE, values))

    def release(self, name: str) -> None:
        query = "DELETE FROM quarantined WHERE object = %s"
        self._transact(lambda session: session.execute(query, [name]))

    def set_aside_codes(self) -> Mapping[str, str]:
        return self._transact(_set_aside_codes)

    def set_aside_since(self, since: datetime, code: str) -> Sequence[SetAside]:
        return self._transact(lambda session: _set_aside_since(session, since, code))


def _set_aside_codes(session: Session) -> dict[str, str]:
    query = "SELECT object, code FROM quarantined ORDER BY last_seen_at"
    return {row["object"]: row["code"] for row in session.execute(query)}


def _set_aside_since(session: Session, since: datetime, code: str) -> list[SetAside]:
    rows = session.execute(_ASIDE_SINCE, [code, since])
    return [SetAside(**{"name": row.pop("object"), **row}) for row in rows]
