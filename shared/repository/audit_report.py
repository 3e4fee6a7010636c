"""`audits/<id>/report.json`: the signed summary of a period, every statement with its evidence."""

from typing import Literal

from pydantic import AwareDatetime, Field

from shared.domain.field_types import Cluster, Label, Milliseconds, Sha256
from shared.repository.documents import Document


class AuditedDuty(Document):
    """What the schedule promised of one kind of job, and what of it was done.

    `missed` names the first hundred ticks after which nothing was done.
    """

    kind: str
    cron: str
    expected: int = Field(ge=0)
    met: int = Field(ge=0)
    open: int = Field(ge=0)
    missed_count: int = Field(ge=0)
    missed: tuple[AwareDatetime, ...] = ()


class AuditedBackup(Document):
    """A backup committed in the period; the newest verification and drill that judge it."""

    label: Label
    digest: Sha256
    committed_at: AwareDatetime
    verified: bool | None = None
    drill: str | None = None


class AuditedEvidence(Document):
    """A signed report of the period, bound by the SHA-256 of its stored bytes."""

    kind: Literal["verification", "drill", "expiry"]
    id: str
    digest: Sha256
    label: Label | None = None
    created_at: AwareDatetime
    verdict: str
    rto_ms: Milliseconds | None = None
    rpo_ms: Milliseconds | None = None


class AuditedObjectives(Document):
    """What is promised, and the worst that drills of the period measured."""

    rto_ms: Milliseconds
    worst_rto_ms: Milliseconds | None = None
    rpo_ms: Milliseconds
    worst_rpo_ms: Milliseconds | None = None


class AuditedTrail(Document):
    """The trail of changes over HTTP, of the whole repository, up to the report's time. `newest` is
    the SHA-256 of its last event; `breaks` name events that are missing or were changed.
    """

    events: int = Field(ge=0)
    newest: Sha256 | None = None
    breaks: tuple[str, ...] = ()


class Disbelieved(Document):
    """Something of the period that could not be believed, by its name and the error's code."""

    object: str
    code: str


class AuditReport(Document):
    """Of [since, until), from the repository alone. `passed`: nothing missed, failed or broken."""

    format: Literal["pgkeep-audit-report-1"] = "pgkeep-audit-report-1"
    id: str
    cluster: Cluster
    since: AwareDatetime
    until: AwareDatetime
    created_at: AwareDatetime
    passed: bool
    duties: tuple[AuditedDuty, ...]
    objectives: AuditedObjectives
    backups: tuple[AuditedBackup, ...]
    evidence: tuple[AuditedEvidence, ...]
    trail: AuditedTrail
    disbelieved: tuple[Disbelieved, ...] = ()
    tool: str
