"""What the control plane asks of the catalogue: narrow ports and the values they speak in.

Every operation is one transaction, idempotent, and safe to run from several instances at once.
Adapters raise only the errors of shared.errors: CatalogueUnavailable, CatalogueDenied,
CatalogueValueRefused, BackupConflict, ReportConflict, ClusterConflict, RequestConflict,
MessageInvalid, BackupNotFound and JobNotFound.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from shared.catalogue.agenda_port import Agenda
from shared.catalogue.budget_port import RequestBudgets
from shared.catalogue.fleet_port import FleetFacts
from shared.catalogue.geo_port import GeoFacts
from shared.catalogue.guard_port import GuardFacts
from shared.catalogue.restore_port import RestoreRequests
from shared.domain.backup import BackupFacts
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingScope
from shared.domain.findings import Finding, FindingChanges
from shared.domain.freshness import BackupBase, WalFreshness
from shared.domain.job import JobProgress, JobReport, JobState, JobVerb
from shared.domain.lsn import Lsn
from shared.jobs.messages import AnyJob, JobEvent
from shared.jobs.wal_events import WalEvent
from shared.repository.blob_store import BlobName
from shared.repository.documents import ClusterDocument, DrillReport, FullInstead
from shared.repository.documents import Finding as DocumentFinding
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.header_verification import HeaderVerification
from shared.repository.layout import BackupRef
from shared.repository.reports import StoredReport
from shared.repository.wal_listing import ArchiveSnapshot

# What a signed document says; `record` stores it, `replace` makes it the only truth.
Fact = ClusterDocument | HeaderVerification | StoredReport


@dataclass(frozen=True, slots=True)
class CataloguedBackup:
    """A backup as the catalogue shows it; sizes in bytes, findings of the header verification.

    `parent` is a label; `depth` and `instead_of_incremental` are as in the document.
    """

    ref: BackupRef
    digest: str
    facts: BackupFacts
    stored_bytes: int
    plain_bytes: int
    findings: tuple[DocumentFinding, ...]
    parent: str | None
    depth: int
    instead_of_incremental: FullInstead | None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as asked for and as reported; `request` None means that only events told of it.

    `received_at` and `ended_at` are by our clock: when something new of it, and when its end, was
    taken in. A retry names in `retry_of` the job that was asked for first.
    """

    job_id: UUID
    cluster: ClusterName
    verb: JobVerb
    request: AnyJob | None
    requested_at: datetime | None
    sent_at: datetime | None
    progress: JobProgress
    created_at: datetime | None = None
    received_at: datetime | None = None
    ended_at: datetime | None = None
    retry_of: UUID | None = None
    retry: int = 0

    @property
    def first(self) -> UUID:
        """The job that was asked for, of which this is the only or a further run."""
        return self.retry_of or self.job_id


@dataclass(frozen=True, slots=True)
class SetAside:
    """What could not be believed, and why; `times` counts how often it came."""

    name: str
    code: str
    fact: str
    first_seen_at: datetime
    last_seen_at: datetime
    times: int


@dataclass(frozen=True, slots=True)
class RecordedFinding:
    """A finding as the catalogue remembers it; `closed_at` None means that it is open."""

    cluster: ClusterName
    finding: Finding
    opened_at: datetime
    closed_at: datetime | None


class RepositoryIndex(Protocol):
    """Facts: what the repository's signed documents say."""

    def record(self, fact: Fact, now: datetime) -> bool:
        """True when it is new; False when the same document is known already.

        Raises BackupConflict, ReportConflict or ClusterConflict when another one has its place.
        """
        ...

    def replace(self, facts: Iterable[Fact], now: datetime) -> None:
        """Make the facts given the only ones, but keep rows recorded at or after `now`."""
        ...

    def backups(
        self, cluster: ClusterName | None = None, *, limit: int, before: str | None = None
    ) -> Sequence[CataloguedBackup]:
        """Newest first; `before` is the label after which the previous page ended."""
        ...

    def backup(self, ref: BackupRef) -> CataloguedBackup:
        """Raises BackupNotFound."""
        ...

    def known_blobs(self) -> set[BlobName]:
        """Names of all documents and reports that are recorded."""
        ...

    def never_verified(self, committed_before: datetime) -> Sequence[CataloguedBackup]:
        """Backups that no deep verification has judged, oldest first."""
        ...

    def drill_report(self, cluster: ClusterName, report_id: str) -> DrillReport | None: ...

    def forget(self, backups: Mapping[BackupRef, str]) -> None:
        """Remove the rows of backups that were deleted, each with the digest of its document: a
        row with another digest stays. Reports about them stay, as they do in the repository.
        """
        ...

    def lost_predecessors(self) -> Sequence[tuple[BackupRef, BackupRef]]:
        """Backups, each with the one that its document names before it, where that has no row and
        no report of `expire` tells of it.
        """
        ...

    def lost_backups(self, told_since: datetime) -> Sequence[BackupRef]:
        """Backups without a row that a report of a verification or drill of `told_since` or later
        is about, but that no report of `expire` tells of.
        """
        ...

    def differing_columns(self, fact: Fact) -> Sequence[str]:
        """In which its row says something else than the fact; none when there is no row."""
        ...

    def newest_expiry(self, cluster: ClusterName) -> ExpiryReport | None: ...

    def wal_starts(self, cluster: ClusterName) -> Mapping[int, Lsn]:
        """Where the log begins that goes on, by timeline, since the newest run that deleted: below,
        only what single backups need is left, and gaps are none.
        """
        ...

    def content(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        """Every fact, table by table, without operational columns: what a rebuild must equal."""
        ...


class JobLedger(Protocol):
    """Jobs from request to end.

    Recording a request and sending it are two steps, so that a crash between them loses nothing:
    an unsent request is found and sent by whoever runs next.
    """

    def request(self, job: AnyJob, now: datetime) -> bool:
        """True when it is new. Raises RequestConflict when the id belongs to another request."""
        ...

    def claim_unsent(self, now: datetime) -> Sequence[AnyJob]:
        """Requests for this caller alone to send now; a claim lapses if `mark_sent` never comes."""
        ...

    def mark_sent(self, job_id: UUID, now: datetime) -> None: ...

    def send_again(self, job_id: UUID, *, quiet_since: datetime) -> bool:
        """Make a request unsent, unless it was sent, claimed or heard of after `quiet_since`."""
        ...

    def record_event(self, event: JobEvent, now: datetime) -> JobRecord:
        """Keep the report and fold it into the job: repetitions and order do not matter.

        Raises MessageInvalid when the job is one of another cluster or verb.
        """
        ...

    def job(self, job_id: UUID) -> JobRecord:
        """Raises JobNotFound."""
        ...

    def jobs_of(self, job_ids: Collection[UUID]) -> Mapping[UUID, JobRecord]:
        """Those that are known."""
        ...

    def jobs(
        self,
        cluster: ClusterName | None = None,
        state: JobState | None = None,
        *,
        limit: int,
        before: UUID | None = None,
    ) -> Sequence[JobRecord]:
        """Newest first; `before` is the job after which the previous page ended."""
        ...

    def running_jobs(self) -> Sequence[JobRecord]: ...

    def job_reports(self, job_id: UUID) -> Sequence[JobReport]:
        """Every distinct report of the job, in order of their time."""
        ...


class JobRecovery(Protocol):
    """Jobs of which nothing more is heard, jobs that failed, and jobs that are long over."""

    def listen(self, now: datetime, *, hears: bool) -> datetime:
        """Note a look at the event queue; since when all looks, without a break, have heard."""
        ...

    def silent_jobs(self, received_before: datetime) -> Sequence[JobRecord]:
        """Running ones of which nothing new was taken in since."""
        ...

    def never_taken(self, sent_before: datetime) -> Sequence[JobRecord]:
        """Those that no worker has, though they were sent before."""
        ...

    def give_up(
        self, end: JobEvent, retry: AnyJob | None, *, quiet_since: datetime, now: datetime
    ) -> bool:
        """Record the end, and at once the request that takes the job's place.

        False, and nothing done, when it is over or there was news of it at `quiet_since` or later.
        """
        ...

    def failed_jobs(self) -> Sequence[JobRecord]:
        """The last to end of each cluster and verb, if it failed and no retry is under way."""
        ...

    def prune_jobs(self, before: datetime) -> int:
        """Forget jobs that ended before, with their events, and ticks but the newest; how many.

        A call forgets a few thousand at most: call again until it is 0.
        """
        ...


class Quarantine(Protocol):
    """What could not be believed, for a person to look at."""

    def set_aside(self, name: str, code: str, fact: str, now: datetime) -> None:
        """Note it, or count it once more."""
        ...

    def release(self, name: str) -> None:
        """Forget it, because it was accepted after all."""
        ...

    def set_aside_codes(self) -> Mapping[str, str]:
        """Code by name of all that is set aside."""
        ...

    def set_aside_since(self, since: datetime, code: str) -> Sequence[SetAside]:
        """What was set aside with this code, or once more, at `since` or later; newest first."""
        ...


class WalFacts(Protocol):
    """How far WAL is archived, and what its writers say."""

    def record_wal_event(self, event: WalEvent, now: datetime) -> bool:
        """Keep the newest by its own time: each writer's progress, each name in conflict, each gap.

        False when a newer one is known, or the same: repetitions and order do not matter. A time
        in the future is a wrong clock's, and is taken for `now`.
        """
        ...

    def wal_events(self, cluster: ClusterName) -> Sequence[WalEvent]:
        """All that are kept."""
        ...

    def archive_snapshot(self, cluster: ClusterName) -> ArchiveSnapshot | None: ...

    def put_archive_snapshot(
        self, cluster: ClusterName, snapshot: ArchiveSnapshot, taken_at: datetime
    ) -> None:
        """The newest stays, whoever comes last: one that is lost is read again from there."""
        ...

    def newest_base(self, cluster: ClusterName) -> BackupBase | None:
        """The newest backup that no later verification found damaged, nor any below it."""
        ...

    def record_freshness(self, seen: WalFreshness) -> None:
        """The newest stays, whoever comes last."""
        ...

    def freshness(self, cluster: ClusterName) -> WalFreshness | None: ...


class FindingLedger(Protocol):
    """What is wrong, of every scope; `REPOSITORY` stands for the cluster where it is about all."""

    def settle_findings(
        self,
        cluster: ClusterName,
        scopes: Collection[FindingScope],
        found: Iterable[Finding],
        now: datetime,
    ) -> FindingChanges:
        """Make what was found what is open of these scopes; others stay as they are. `now` is when
        looking began: a finding that somebody else opened since then stays open.
        """
        ...

    def open_findings(
        self, cluster: ClusterName, found: Iterable[Finding], now: datetime
    ) -> FindingChanges:
        """As `settle_findings`, but close nothing."""
        ...

    def findings(
        self,
        cluster: ClusterName | None = None,
        *,
        closed_since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[RecordedFinding]:
        """The open ones, and those that were closed at `closed_since` or later; newest first."""
        ...


class Catalogue(
    RepositoryIndex,
    Agenda,
    FleetFacts,
    JobLedger,
    JobRecovery,
    Quarantine,
    WalFacts,
    FindingLedger,
    GuardFacts,
    GeoFacts,
    RestoreRequests,
    RequestBudgets,
    Protocol,
):
    """All of it, and whether it answers."""

    def check(self) -> None:
        """Raises CatalogueUnavailable, CatalogueDenied or one of CatalogueSchema…"""
        ...
