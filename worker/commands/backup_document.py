"""Composing backup.json: pure, from what the steps of a backup found out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.domain.backup import BackupLabel, BackupSource
from shared.repository.backups import StoredBackup
from shared.repository.documents import (
    BackupDocument,
    BackupLink,
    ClusterDocument,
    FullInstead,
    PostgresFacts,
    SealedObject,
    Tablespace,
    WalRange,
)
from shared.version import VERSION
from worker.commands.backup_stream import StoredStream


@dataclass(frozen=True, slots=True)
class Ingredients:
    """Everything that a backup document says."""

    cluster: ClusterDocument
    label: BackupLabel
    previous: StoredBackup | None
    parent: StoredBackup | None
    instead_of_incremental: FullInstead | None
    source: BackupSource
    postgres: PostgresFacts
    stream: StoredStream
    next_xid: int
    parts: Sequence[SealedObject]
    kid: str
    job_id: UUID | None
    started_at: datetime
    finished_at: datetime
    stream_ms: int
    total_ms: int


def compose_document(found: Ingredients) -> BackupDocument:
    """Start and stop come from the protocol, WAL from start to stop is in the backup itself."""
    stream, previous, parent = found.stream, found.previous, found.parent
    timeline = stream.start.timeline
    return BackupDocument(
        cluster=found.cluster.cluster,
        cluster_uuid=found.cluster.cluster_uuid,
        system_identifier=found.cluster.system_identifier,
        label=found.label.text,
        kind=found.label.kind,
        parent=parent and _link(parent),
        depth=parent.document.depth + 1 if parent else 0,
        instead_of_incremental=found.instead_of_incremental,
        previous=previous and _link(previous),
        counter=previous.document.counter + 1 if previous else 1,
        created_at=found.finished_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
        source=found.source,
        postgres=found.postgres,
        timeline=timeline,
        start_lsn=stream.start.lsn,
        stop_lsn=stream.stop.lsn,
        next_xid=found.next_xid,
        wal=(WalRange(timeline=timeline, start=stream.start.lsn, end=stream.stop.lsn),),
        wal_included=True,
        tablespaces=_tablespaces(stream),
        page_checksum_failures=stream.page_checksum_failures,
        kid=found.kid,
        volumes=tuple(stream.volumes),
        objects=tuple(found.parts),
        stream_ms=found.stream_ms,
        total_ms=found.total_ms,
        job_id=found.job_id,
        tool=f"pgkeep {VERSION}",
    )


def _link(backup: StoredBackup) -> BackupLink:
    return BackupLink(label=backup.document.label, digest=backup.digest)


def _tablespaces(stream: StoredStream) -> tuple[Tablespace, ...]:
    return tuple(
        Tablespace(
            oid=item.oid,
            path=item.path.decode("utf-8"),
            in_place=item.path.startswith(b"pg_tblspc/"),
        )
        for item in stream.tablespaces
        if item.oid is not None
    )
