"""Every kind of finding: who looks for it, how bad it is, and what to do about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """`critical`: something is being lost, or could not be recovered now. `error`: a promise is
    broken. `warning`: it will be, if nothing is done.
    """

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"


class FindingScope(StrEnum):
    """Who looks, and so who may close."""

    WAL = "wal"
    FRESHNESS = "freshness"
    SCHEDULE = "schedule"
    JOBS = "jobs"
    GUARD = "guard"
    REPLICATION = "replication"
    RETENTION = "retention"
    RECONCILE = "reconcile"
    SETTINGS = "settings"


class FindingCode(StrEnum):
    """Stable; docs/reference/findings.md explains each."""

    # wal
    BEHIND = "wal-behind"
    GAP = "wal-gap"
    DUPLICATE_WRITER = "wal-duplicate-writer"
    SLOT_LOST = "wal-slot-lost"
    SLOT_UNLIMITED = "wal-slot-unlimited"
    UNREPORTED = "wal-unreported"
    # freshness
    BACKUP_OVERDUE = "backup-overdue"
    VERIFICATION_OVERDUE = "verification-overdue"
    PROOF_OVERDUE = "proof-overdue"
    RPO_BROKEN = "rpo-broken"
    RTO_BROKEN = "rto-broken"
    STORAGE_NEARLY_FULL = "storage-nearly-full"
    # schedule
    RUN_MISSED = "run-missed"
    RUN_SKIPPED = "run-skipped"
    WINDOW_OVERRUN = "window-overrun"
    # jobs
    JOB_FAILED = "job-failed"
    JOB_LOST = "job-lost"
    MESSAGE_POISONED = "message-poisoned"
    EVENTS_WAITING = "events-waiting"
    # guard
    LIFECYCLE_WOULD_DELETE_PARENT = "lifecycle-would-delete-parent"
    LIFECYCLE_WOULD_DELETE_KEYS = "lifecycle-would-delete-keys"
    LIFECYCLE_WOULD_DELETE_BACKUP = "lifecycle-would-delete-backup"
    TIERED_TOO_EARLY = "tiered-too-early"
    IMMUTABILITY_SHORTER = "immutability-shorter-than-retention"
    POLICY_MISSING = "policy-missing"
    GUARD_BLIND = "guard-blind"
    # replication
    GEO_BEHIND = "geo-behind"
    GEO_OVERDUE = "geo-overdue"
    OBJECT_REPLICATION_FAILED = "object-replication-failed"
    # retention
    EXPIRE_REFUSED = "expire-refused"
    # reconcile
    EVENT_LOST = "event-lost"
    CATALOGUE_DIFFERS = "catalogue-differs"
    DOCUMENT_MISSING = "document-missing"
    CHAIN_BROKEN = "chain-broken"
    DISBELIEVED = "document-disbelieved"
    # settings
    SETTINGS_NOT_FOLLOWED = "settings-not-followed"


@dataclass(frozen=True, slots=True)
class FindingRule:
    """What holds for every finding of a code. `page` explains it, below docs/."""

    scope: FindingScope
    severity: Severity
    advice: str
    page: str | None = None

    @property
    def action(self) -> str:
        """What to do next, one sentence."""
        return f"{self.advice}." if self.page is None else f"{self.advice}: docs/{self.page}."


# Code, severity, what to do, page.
_Row = tuple[FindingCode, Severity, str, str | None]
_C, _S = FindingCode, Severity

_WAL: Final[tuple[_Row, ...]] = (
    (
        _C.BEHIND,
        _S.CRITICAL,
        "Look at the log of the receiver or agent, and at the room in pg_wal",
        "runbooks/wal-behind.md",
    ),
    (
        _C.GAP,
        _S.CRITICAL,
        "Take a backup now, then look for the missing segments",
        "runbooks/wal-gap.md",
    ),
    (
        _C.DUPLICATE_WRITER,
        _S.CRITICAL,
        "Find the second server that writes into this archive",
        "runbooks/wal-duplicate-writer.md",
    ),
    (
        _C.SLOT_LOST,
        _S.CRITICAL,
        "Take a backup now; the receiver makes a new slot",
        "runbooks/wal-gap.md",
    ),
    (
        _C.SLOT_UNLIMITED,
        _S.WARNING,
        "Set max_slot_wal_keep_size: a receiver that stays away would fill the server's disk",
        None,
    ),
    (
        _C.UNREPORTED,
        _S.ERROR,
        "Start the receiver or agent, or look why its reports do not arrive",
        "runbooks/wal-behind.md",
    ),
)
_FRESHNESS: Final[tuple[_Row, ...]] = (
    (_C.BACKUP_OVERDUE, _S.CRITICAL, "Look why backups fail", "runbooks/backup-failed.md"),
    (
        _C.VERIFICATION_OVERDUE,
        _S.ERROR,
        "Look at the verification jobs and the restore worker",
        "runbooks/verification-overdue.md",
    ),
    (_C.PROOF_OVERDUE, _S.ERROR, "Run a drill and read its report", "runbooks/drill-failed.md"),
    (_C.RPO_BROKEN, _S.ERROR, "Bring the WAL archive up to date", "runbooks/wal-behind.md"),
    (
        _C.RTO_BROKEN,
        _S.ERROR,
        "Give the restore host more bandwidth, or shorten chains",
        "runbooks/objective-broken.md",
    ),
    (
        _C.STORAGE_NEARLY_FULL,
        _S.WARNING,
        "Raise the budget or shorten retention",
        "runbooks/storage-nearly-full.md",
    ),
)
_SCHEDULE: Final[tuple[_Row, ...]] = (
    (_C.RUN_MISSED, _S.ERROR, "Look why the job did not start", "runbooks/job-failed.md"),
    (
        _C.RUN_SKIPPED,
        _S.ERROR,
        "The previous run still goes on each time: give it more room, or run less often",
        None,
    ),
    (
        _C.WINDOW_OVERRUN,
        _S.WARNING,
        "It goes on and is not killed; make its window larger, or find out what slows it",
        None,
    ),
)
_JOBS: Final[tuple[_Row, ...]] = (
    (_C.JOB_FAILED, _S.ERROR, "Read the error of the job", "runbooks/job-failed.md"),
    (_C.JOB_LOST, _S.ERROR, "Look at the container host", "runbooks/job-lost.md"),
    (
        _C.MESSAGE_POISONED,
        _S.ERROR,
        "Look at the message and who wrote it",
        "runbooks/message-poisoned.md",
    ),
    (
        _C.EVENTS_WAITING,
        _S.ERROR,
        "Look why the function app does not take events in",
        "runbooks/event-queue-stuck.md",
    ),
)
_GUARD: Final[tuple[_Row, ...]] = (
    (
        _C.LIFECYCLE_WOULD_DELETE_PARENT,
        _S.CRITICAL,
        "Change or disable the lifecycle rule now",
        "runbooks/lifecycle-conflict.md",
    ),
    (
        _C.LIFECYCLE_WOULD_DELETE_KEYS,
        _S.CRITICAL,
        "Change or disable the lifecycle rule now: without its keys no backup opens",
        "runbooks/lifecycle-conflict.md",
    ),
    (
        _C.LIFECYCLE_WOULD_DELETE_BACKUP,
        _S.ERROR,
        "Change the lifecycle rule, or the retention",
        "runbooks/lifecycle-conflict.md",
    ),
    (
        _C.TIERED_TOO_EARLY,
        _S.ERROR,
        "Keep what a restore needs out of the archive tier",
        "runbooks/lifecycle-conflict.md",
    ),
    (
        _C.IMMUTABILITY_SHORTER,
        _S.WARNING,
        "Make the container's immutability at least as long as the retention",
        "runbooks/lifecycle-conflict.md",
    ),
    (
        _C.POLICY_MISSING,
        _S.WARNING,
        "Give the container a time-based retention policy, and lock it",
        "runbooks/lifecycle-conflict.md",
    ),
    (
        _C.GUARD_BLIND,
        _S.WARNING,
        "Let the function app read the storage account's policies",
        "runbooks/lifecycle-conflict.md",
    ),
)
_REPLICATION: Final[tuple[_Row, ...]] = (
    (_C.GEO_BEHIND, _S.WARNING, "Watch Azure's status", "runbooks/geo-behind.md"),
    (_C.GEO_OVERDUE, _S.ERROR, "Watch Azure's status", "runbooks/geo-behind.md"),
    (
        _C.OBJECT_REPLICATION_FAILED,
        _S.ERROR,
        "Look at the account's replication policy",
        "runbooks/geo-behind.md",
    ),
)
_RETENTION: Final[tuple[_Row, ...]] = (
    (
        _C.EXPIRE_REFUSED,
        _S.ERROR,
        "Read the reasons of `pgkeep expire --dry-run`",
        "runbooks/expire-refused.md",
    ),
)
_RECONCILE: Final[tuple[_Row, ...]] = (
    (_C.EVENT_LOST, _S.WARNING, "The event was made up for; look at Event Grid's deliveries", None),
    (
        _C.CATALOGUE_DIFFERS,
        _S.ERROR,
        "Rebuild the catalogue, then look who changed it",
        "how-to/rebuild-the-catalogue.md",
    ),
    (
        _C.DOCUMENT_MISSING,
        _S.CRITICAL,
        "A committed backup has gone from the repository",
        "runbooks/repository-damaged.md",
    ),
    (_C.CHAIN_BROKEN, _S.CRITICAL, "Take a full backup now", "runbooks/repository-damaged.md"),
    (_C.DISBELIEVED, _S.ERROR, "Look at who wrote the document", "runbooks/repository-damaged.md"),
)

_SETTINGS: Final[tuple[_Row, ...]] = (
    (
        _C.SETTINGS_NOT_FOLLOWED,
        _S.ERROR,
        "Correct the document and upload it again: until then the last good settings hold",
        "how-to/configure-a-fleet.md",
    ),
)


def _rules() -> Iterator[tuple[FindingCode, FindingRule]]:
    tables = {
        FindingScope.WAL: _WAL,
        FindingScope.FRESHNESS: _FRESHNESS,
        FindingScope.SCHEDULE: _SCHEDULE,
        FindingScope.JOBS: _JOBS,
        FindingScope.GUARD: _GUARD,
        FindingScope.REPLICATION: _REPLICATION,
        FindingScope.RETENTION: _RETENTION,
        FindingScope.RECONCILE: _RECONCILE,
        FindingScope.SETTINGS: _SETTINGS,
    }
    for scope, rows in tables.items():
        for code, severity, advice, page in rows:
            yield code, FindingRule(scope, severity, advice, page)


RULES: Final[Mapping[FindingCode, FindingRule]] = dict(_rules())
