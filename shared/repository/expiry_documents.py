"""Signed documents of expiry: the tombstone of one backup, and the report of a run.

A tombstone is written before its backup is deleted. Without one, parts that no document names may
be what is left of a backup that somebody else deleted, and are not touched.
"""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from shared.domain.field_types import Cluster, Label, LsnText, Sha256, Size
from shared.repository.documents import Document

RemainsVerdict = Literal["litter", "young", "expired", "document-missing"]
"""`litter`: of an attempt that did not finish, and old. `young`: may become that. `expired`: what
an interrupted run left. `document-missing`: of a backup that was verified once and that no run of
`expire` has deleted.
"""


class Tombstone(Document):
    """`expired/<label>/<run>.json`: this run deletes this backup. It may still be there: a policy
    of the storage can forbid it, and a run can die.
    """

    format: Literal["pgkeep-tombstone-1"] = "pgkeep-tombstone-1"
    cluster: Cluster
    label: Label
    document_digest: Sha256
    run: UUID
    created_at: AwareDatetime
    bytes: Size
    reasons: tuple[str, ...]


class ExpiredBackup(Document):
    """A backup whose document is gone; `state` as of one that stays. `bytes` is what it took, but
    for the blobs that are `left` because the storage keeps them.
    """

    label: Label
    document_digest: Sha256
    bytes: Size
    state: str = ""
    left: int = Field(default=0, ge=0)
    reasons: tuple[str, ...]


class StayingBackup(Document):
    """A backup that stays. `state` is one word: proven, verified, unverified, suspect, damaged."""

    label: Label
    state: str
    bytes: Size
    reasons: tuple[str, ...]


class NotYet(Document):
    """What could not be deleted because the storage keeps it, in the storage's words."""

    object: str
    blobs: int = Field(ge=1)
    fact: str


class Remains(Document):
    """Parts of a backup that has no document. `newest` is when the last of them was written."""

    object: str
    verdict: RemainsVerdict
    blobs: int = Field(ge=1)
    bytes: Size
    newest: AwareDatetime


class WalStart(Document):
    """Below this position of the timeline only what single backups need of it is kept."""

    timeline: int = Field(ge=1)
    lsn: LsnText


class ExpiredWal(Document):
    """Files of the archive that are gone; `before` is where the rest begins."""

    files: int = Field(default=0, ge=0)
    bytes: Size = 0
    before: tuple[WalStart, ...] = ()


class ReportedWindow(Document):
    """Every position of the timeline from `start` to `end` can be recovered: see RecoveryWindow.

    `backups` are labels, oldest first.
    """

    timeline: int = Field(ge=1)
    start: LsnText
    started_at: AwareDatetime
    end: LsnText
    last_commit: AwareDatetime | None = None
    backups: tuple[Label, ...]


class ReportedPolicy(Document):
    """What the settings promised at a run; the keys are those of `[cluster.retention]`."""

    full_days: float = Field(gt=0)
    incremental_days: float = Field(gt=0)
    wal_days: float = Field(gt=0)
    keep_last: int = Field(ge=1)
    weekly: int = Field(ge=0)
    monthly: int = Field(ge=0)
    yearly: int = Field(ge=0)
    hold: tuple[Label, ...] = ()


class ExpiryReport(Document):
    """`expiries/<id>/report.json`: what a run of `expire` deleted, why, and what can be restored
    from then on.

    `refused` says why nothing was deleted although something would have gone. Of very many backups
    that stay only the newest are told; `staying_count` counts them all. A run that died is reported
    by the next one, which names it in `completed`. `policy` is what the settings said; it `settles`
    while the run went by a longer one of earlier runs.
    """

    format: Literal["pgkeep-expiry-1"] = "pgkeep-expiry-1"
    id: UUID
    cluster: Cluster
    created_at: AwareDatetime
    plan: Sha256
    policy: ReportedPolicy | None = None
    settles: bool = False
    refused: str | None = None
    went: tuple[ExpiredBackup, ...] = ()
    staying: tuple[StayingBackup, ...] = ()
    staying_count: int = Field(ge=0)
    postponed: int = Field(default=0, ge=0)
    not_yet: tuple[NotYet, ...] = ()
    wal: ExpiredWal = ExpiredWal()
    remains: tuple[Remains, ...] = ()
    completed: tuple[UUID, ...] = ()
    foreign: tuple[str, ...] = ()
    foreign_count: int = Field(default=0, ge=0)
    freed_bytes: Size
    windows_before: tuple[ReportedWindow, ...] = ()
    windows_after: tuple[ReportedWindow, ...] = ()
    tool: str
