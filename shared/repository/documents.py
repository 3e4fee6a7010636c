"""The signed documents of the repository: one pydantic model each, the only parser they have.

Stored as RFC 8785 canonical JSON with a `signature` member (shared.repository.signatures).
Documents are in clear, so a backup's holds no name of a table, column or database: those lie in
its sealed object `facts`. Only a drill's report names tables: those that the settings name.
Numbers that may pass 2^53 (system identifiers) are decimal strings. Times are UTC; durations and
sizes are integers in milliseconds and bytes.
"""

from typing import Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared.domain.backup import BackupKind, BackupLabel, BackupSource
from shared.domain.drill import Check, DrillVerdict, TableVerdict
from shared.domain.drill_target import DrillLevel
from shared.domain.field_types import (
    Cluster,
    Label,
    LsnText,
    Milliseconds,
    Sha256,
    Size,
    SystemIdentifier,
    TransactionNumber,
)
from shared.errors import Corrupt


class Document(BaseModel):
    """Frozen; unknown members are refused, because a reader must not skip what it cannot judge."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClusterDocument(Document):
    """`cluster.json`: binds a cluster's name to one PostgreSQL system, written at first contact."""

    format: Literal["pgkeep-cluster-1"] = "pgkeep-cluster-1"
    cluster: Cluster
    cluster_uuid: str
    system_identifier: SystemIdentifier
    created_at: AwareDatetime


class Tablespace(Document):
    oid: int
    path: str
    in_place: bool = False


class WalRange(Document):
    """WAL that recovery from this backup needs; `end` is exclusive."""

    timeline: int = Field(ge=1)
    start: LsnText
    end: LsnText


class Volume(Document):
    """One data blob: sealed stream of zstd frames of a piece of one archive's tar stream."""

    name: str
    archive: str
    number: int = Field(ge=0)
    stored_size: Size
    sha256: Sha256
    plain_size: Size
    plain_sha256: Sha256
    frames: int = Field(ge=0)


class SealedObject(Document):
    """`backup_manifest`, `index` or `facts`: a small sealed blob, under the key `kid`."""

    name: str
    kid: str
    stored_size: Size
    sha256: Sha256
    plain_size: Size
    plain_sha256: Sha256


class PostgresFacts(Document):
    """What a restore host must match. Sizes in bytes."""

    version_num: int
    version: str
    block_size: int
    wal_segment_size: int
    data_checksums: bool
    collation_versions: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    preload_libraries: tuple[str, ...] = ()

    @property
    def major(self) -> int:
        return self.version_num // 10000


class BackupLink(Document):
    """Another backup's document, bound by the SHA-256 of its stored bytes."""

    label: Label
    digest: Sha256


class FullInstead(Document):
    """Why a full backup was taken where an incremental was asked for; `code` is stable."""

    code: str
    reason: str


class BackupDocument(Document):
    """`backup.json`: a backup exists if and only if this does; written last, create-only."""

    format: Literal["pgkeep-backup-1"] = "pgkeep-backup-1"
    cluster: Cluster
    cluster_uuid: str
    system_identifier: SystemIdentifier
    label: Label
    kind: BackupKind
    parent: BackupLink | None = None
    # How many incrementals lie between this backup and its full, itself included.
    depth: int = Field(default=0, ge=0)
    instead_of_incremental: FullInstead | None = None
    # The newest link of the chain that a synthetic full was composed of, without the server.
    composed_of: BackupLink | None = None
    previous: BackupLink | None = None
    counter: int = Field(ge=1)
    created_at: AwareDatetime
    started_at: AwareDatetime
    finished_at: AwareDatetime
    source: BackupSource
    postgres: PostgresFacts
    timeline: int = Field(ge=1)
    start_lsn: LsnText
    stop_lsn: LsnText
    # The first transaction number, with its epoch, that the backup's end cannot hold.
    next_xid: TransactionNumber | None = None
    wal: tuple[WalRange, ...]
    wal_included: bool
    tablespaces: tuple[Tablespace, ...] = ()
    page_checksum_failures: int = Field(default=0, ge=0)
    kid: str
    volumes: tuple[Volume, ...]
    objects: tuple[SealedObject, ...]
    stream_ms: Milliseconds
    total_ms: Milliseconds
    job_id: UUID | None = None
    tool: str

    @model_validator(mode="after")
    def _kind_matches(self) -> Self:
        if BackupLabel.parse(self.label).kind is not self.kind:
            raise ValueError("the label is of another kind")
        if (self.kind is BackupKind.INCREMENTAL) != (self.parent is not None):
            raise ValueError("an incremental names its parent, and nothing else does")
        if (self.kind is BackupKind.INCREMENTAL) != (self.depth > 0):
            raise ValueError("an incremental has a depth, and nothing else has")
        if self.kind is BackupKind.INCREMENTAL and (
            self.composed_of is not None or self.instead_of_incremental is not None
        ):
            raise ValueError("only a full backup is synthetic or taken instead of another")
        names = [part.name for part in self.parts]
        if len(names) != len(set(names)):
            raise ValueError("two parts have one name")
        return self

    @property
    def parts(self) -> tuple[Volume | SealedObject, ...]:
        """Every blob of the backup but the document itself."""
        return self.volumes + self.objects

    @property
    def suspect(self) -> bool:
        """PostgreSQL reported page-checksum failures while it read its files."""
        return self.page_checksum_failures > 0

    @property
    def plain_size(self) -> int:
        return sum(volume.plain_size for volume in self.volumes)

    @property
    def stored_size(self) -> int:
        return sum(part.stored_size for part in self.parts)

    def object(self, name: str) -> SealedObject:
        """The sealed object of this name. Raises Corrupt when the document has none."""
        for item in self.objects:
            if item.name == name:
                return item
        raise Corrupt(f"the document of backup {self.label} names no {name}")


class Finding(Document):
    """One thing a verification found wrong; `code` is one of shared.errors."""

    code: str
    object: str
    detail: str


class ChainLinkProof(Document):
    """What stands for an ancestor: the report about exactly its document.

    `remembered` says that the report was there already: the ancestor's data was not read again.
    """

    label: Label
    digest: Sha256
    report: str
    remembered: bool


class VerificationReport(Document):
    """`verifications/<id>/report.json`: what a deep verification read, and what it found.

    Counts are of this backup alone. `chain` are its ancestors, the full first; each has a report of
    its own.
    """

    format: Literal["pgkeep-verification-1"] = "pgkeep-verification-1"
    id: str
    cluster: Cluster
    label: Label
    document_digest: Sha256
    deep: bool
    passed: bool
    created_at: AwareDatetime
    total_ms: Milliseconds
    segments: int = Field(ge=0)
    files: int = Field(ge=0)
    stored_bytes: Size
    plain_bytes: Size
    findings: tuple[Finding, ...] = ()
    chain: tuple[ChainLinkProof, ...] = ()


class DrillReport(Document):
    """`drills/<id>/report.json`: phases in milliseconds, checks in the order they ran.

    `chain` are the backups that were read, the full first, when there is more than one. A drill of
    a backup alone has no `target`. Of one that replayed WAL: `timeline` is the one it
    followed, `reached_lsn` where the replay ended, `reached_time` when the last replayed
    transaction ended by the source's clock. `wal_waited_ms` is what of the time PostgreSQL waited
    for its WAL. `rpo_ms` is what a disaster at the target would have cost: the time from the
    newest heartbeat in the copy, or else from `reached_time`. `level` is the duty it fulfilled.
    A drill `from_secondary` read the copy in the second region, as it was at `last_sync_time`.
    """

    format: Literal["pgkeep-drill-1"] = "pgkeep-drill-1"
    id: str
    cluster: Cluster
    label: Label
    document_digest: Sha256
    created_at: AwareDatetime
    verdict: DrillVerdict
    reason: str
    phases_ms: dict[str, Milliseconds]
    rto_ms: Milliseconds
    restored_bytes: Size
    restored_files: int = Field(ge=0)
    postgres: str
    checks: tuple[Check, ...]
    tables: tuple[TableVerdict, ...] = ()
    tool: str
    target: str | None = None
    timeline: int | None = None
    reached_lsn: LsnText | None = None
    reached_time: AwareDatetime | None = None
    replayed_bytes: Size = 0
    wal_segments: int = Field(default=0, ge=0)
    wal_waited_ms: Milliseconds = 0
    rpo_ms: Milliseconds | None = None
    chain: tuple[Label, ...] = ()
    level: DrillLevel | None = None
    from_secondary: bool = False
    last_sync_time: AwareDatetime | None = None
