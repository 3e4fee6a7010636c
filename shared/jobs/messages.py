"""Messages on the queues: versioned, one pydantic model each, the only parser they have.

Jobs go from the function app to the container host, one queue per role, so that each role's
identity can be given just its own rights. Events come back on one queue. An event is a hint that
something happened; the facts themselves are signed documents in the repository.
"""

from contextlib import suppress
from typing import Annotated, Literal, TypeVar, assert_never
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.domain.backup import BackupKind
from shared.domain.drill_target import DrillLevel
from shared.domain.field_types import Cluster, DrillTargetText, Label, RestoreGoalText, Sha256
from shared.domain.job import JobEventKind, JobReport, JobVerb
from shared.errors import MessageInvalid

BACKUP_QUEUE = "pgkeep-backup"
RESTORE_QUEUE = "pgkeep-restore"
EXPIRE_QUEUE = "pgkeep-expire"
MAINTENANCE_QUEUE = "pgkeep-maintenance"
EVENT_QUEUE = "pgkeep-events"
WAL_EVENT_QUEUE = "pgkeep-wal-events"
JOB_QUEUES = (BACKUP_QUEUE, RESTORE_QUEUE, EXPIRE_QUEUE, MAINTENANCE_QUEUE)
# What the Functions host appends to the name of a queue; workers follow it.
POISON = "-poison"
QUEUES = (
    *JOB_QUEUES,
    *(queue + POISON for queue in JOB_QUEUES),
    EVENT_QUEUE,
    WAL_EVENT_QUEUE,
)
# Of this release. A message with a higher one is for a newer release to read.
VERSION = 1

# Azure Queue Storage: a message holds 64 KiB, base64 leaves 48 KiB of text.
MAX_MESSAGE = 48 * 1024

T = TypeVar("T")


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    job_id: UUID
    cluster: Cluster
    # W3C trace context of whoever sent it; what cannot be read there begins a trace of its own.
    traceparent: str | None = Field(default=None, max_length=200)

    def asks_the_same(self, other: "Message | None") -> bool:
        """Whether one id may stand for both, wherever their traces began."""
        untraced = {"traceparent": None}
        return other is not None and self.model_copy(update=untraced) == other.model_copy(
            update=untraced
        )


class MessageTooNew(MessageInvalid):
    """A message whose version this release does not know, but a newer one may."""

    code = "message-too-new"
    hint = "Deploy workers of the release that the function app has; docs/reference/messages.md."


class BackupJob(Message):
    """Take a backup. `due` is the tick it serves, or None when a person asked."""

    verb: Literal[JobVerb.BACKUP] = JobVerb.BACKUP
    kind: BackupKind
    due: AwareDatetime | None = None
    late: bool = False


class VerifyJob(Message):
    """Read a committed backup back: every segment, every file.

    With `whole_chain` the ancestors, too, whatever was proved of them before.
    """

    verb: Literal[JobVerb.VERIFY] = JobVerb.VERIFY
    label: Label
    document_digest: Sha256
    whole_chain: bool = False


class DrillJob(Message):
    """Restore a backup into a throw-away instance and check it; `label` None means the newest.

    `target` is `latest`, `random` or an instant to recover to; None is the backup alone.
    """

    verb: Literal[JobVerb.DRILL] = JobVerb.DRILL
    label: Label | None = None
    target: DrillTargetText | None = None
    level: DrillLevel | None = None
    from_secondary: bool = False


class RestoreJob(Message):
    """Restore into a registered target, and recover to `to`; `label` None lets the plan choose.

    `to` is `latest`, `immediate` or an instant with its offset. `approved_by` differs from
    `requested_by`: the function app made sure of it, and both stand in the audit trail.
    """

    verb: Literal[JobVerb.RESTORE] = JobVerb.RESTORE
    target: Cluster
    label: Label | None = None
    to: RestoreGoalText = "latest"
    requested_by: str = Field(max_length=200)
    approved_by: str = Field(max_length=200)


class ExpireJob(Message):
    """Delete what retention no longer wants. `due` is the tick it serves."""

    verb: Literal[JobVerb.EXPIRE] = JobVerb.EXPIRE
    due: AwareDatetime | None = None


class MaintenanceJob(Message):
    """Rebuild indexes and refresh statistics; begin nothing that would not end by `until`."""

    verb: Literal[JobVerb.MAINTENANCE] = JobVerb.MAINTENANCE
    due: AwareDatetime | None = None
    until: AwareDatetime


class AuditJob(Message):
    """Write the signed audit report of [since, until)."""

    verb: Literal[JobVerb.AUDIT] = JobVerb.AUDIT
    since: AwareDatetime
    until: AwareDatetime


class JobEvent(Message):
    """What a worker reports of a job. `result` is a backup label or a report's id.

    `token` is the fencing token of the lease under which it runs, once it has one.
    """

    verb: JobVerb
    kind: JobEventKind
    attempt: int = Field(ge=1)
    at: AwareDatetime
    succeeded: bool | None = None
    done_bytes: int = Field(default=0, ge=0)
    total_bytes: int = Field(default=0, ge=0)
    result: str | None = Field(default=None, max_length=200)
    error_code: str | None = Field(default=None, max_length=100)
    error_fact: str | None = Field(default=None, max_length=2000)
    token: int | None = Field(default=None, ge=1)

    def report(self) -> JobReport:
        return JobReport(
            kind=self.kind,
            attempt=self.attempt,
            at=self.at,
            succeeded=self.succeeded,
            done_bytes=self.done_bytes,
            total_bytes=self.total_bytes,
            result=self.result,
            error_code=self.error_code,
            error_fact=self.error_fact,
            token=self.token,
        )


AnyJob = BackupJob | VerifyJob | DrillJob | RestoreJob | ExpireJob | MaintenanceJob | AuditJob
Job = Annotated[AnyJob, Field(discriminator="verb")]
_JOB: TypeAdapter[AnyJob] = TypeAdapter(Job)
_EVENT = TypeAdapter(JobEvent)


def queue_of(job: AnyJob) -> str:
    """The queue of the role that may do it: only the restore role can decrypt, only that of expire
    can delete, and that of maintenance sees no backup at all.
    """
    match job:
        case BackupJob():
            return BACKUP_QUEUE
        case VerifyJob() | DrillJob() | RestoreJob() | AuditJob():
            return RESTORE_QUEUE
        case ExpireJob():
            return EXPIRE_QUEUE
        case MaintenanceJob():
            return MAINTENANCE_QUEUE
        case _:
            assert_never(job)


def parse_job(text: str) -> AnyJob:
    """Raises MessageInvalid, naming the first field that does not fit, or MessageTooNew."""
    return _parse(_JOB, text)


def parse_event(text: str) -> JobEvent:
    """Raises as `parse_job` does."""
    return _parse(_EVENT, text)


def _parse(adapter: TypeAdapter[T], text: str) -> T:
    if len(text) > MAX_MESSAGE:
        raise MessageInvalid(f"message of {len(text)} characters is longer than {MAX_MESSAGE}")
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        _refuse_newer(text)
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise MessageInvalid(f"{where}: {first['msg'].lower()}") from None


class _Versioned(BaseModel):
    """The one member that every version of every message has."""

    version: int = Field(gt=VERSION)


def _refuse_newer(text: str) -> None:
    with suppress(ValidationError):
        version = _Versioned.model_validate_json(text, strict=True).version
        raise MessageTooNew(f"message has version {version}, this release knows {VERSION}")
