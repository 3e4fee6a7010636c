"""The catalogue in PostgreSQL: every operation one transaction, on a connection of its own.

A function app runs few operations a minute from many short-lived instances, so connections are
not kept. The SQL lies with its port: repository_index, job_ledger, wal_facts, and here the
quarantine.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from shared.catalogue import finding_ledger, job_ledger, migrate, repository_index, wal_facts
from shared.catalogue.ports import (
    CataloguedBackup,
    Fact,
    JobRecord,
    RecordedFinding,
)
from shared.catalogue.postgres_session import Session, transact
from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingScope
from shared.domain.findings import Finding, FindingChanges
from shared.domain.freshness import BackupBase, WalFreshness
from shared.domain.job import JobReport
from shared.domain.schedule import DueBackup
from shared.jobs.messages import AnyJob, BackupJob, JobEvent
from shared.jobs.wal_events import WalEvent
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport
from shared.repository.layout import BackupRef
from shared.repository.wal_listing import ArchiveSnapshot

_SET_ASIDE = """
    INSERT INTO quarantined (object, code, fact, first_seen_at, last_seen_at)
    VALUES (%(object)s, %(code)s, %(fact)s, %(now)s, %(now)s)
    ON CONFLICT (object, code) DO UPDATE
    SET fact = excluded.fact, last_seen_at = excluded.last_seen_at, times = quarantined.times + 1
"""


class PostgresCatalogue:
    """See shared.catalogue.ports for the contract."""

    def __init__(self, dsn: str) -> None:
        self._transact = partial(transact, dsn)

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

    def content(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        return self._transact(repository_index.content)

    def request(self, job: AnyJob, now: datetime) -> bool:
        return self._transact(lambda session: job_ledger.request(session, job, now))

    def request_for_tick(self, tick: DueBackup, job: BackupJob, now: datetime) -> bool:
        return self._transact(lambda session: job_ledger.request_for_tick(session, tick, job, now))

    def skip_tick(self, tick: DueBackup, now: datetime) -> bool:
        return self._transact(lambda session: job_ledger.serve_tick(session, tick, now))

    def served_ticks(self) -> Mapping[tuple[ClusterName, BackupKind], datetime]:
        return self._transact(job_ledger.served_ticks)

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

    def running_jobs(self) -> Sequence[JobRecord]:
        return self._transact(job_ledger.running_jobs)

    def job_reports(self, job_id: UUID) -> Sequence[JobReport]:
        return self._transact(lambda session: job_ledger.job_reports(session, job_id))

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

    def set_aside(self, name: str, code: str, fact: str, now: datetime) -> None:
        values = {"object": name, "code": code, "fact": fact, "now": now}
        self._transact(lambda session: session.execute(_SET_ASIDE, values))

    def release(self, name: str) -> None:
        query = "DELETE FROM quarantined WHERE object = %s"
        self._transact(lambda session: session.execute(query, [name]))

    def set_aside_codes(self) -> Mapping[str, str]:
        return self._transact(_set_aside_codes)


def _set_aside_codes(session: Session) -> dict[str, str]:
    query = "SELECT object, code FROM quarantined ORDER BY last_seen_at"
    return {row["object"]: row["code"] for row in session.execute(query)}
