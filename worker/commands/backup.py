"""`pgkeep backup`: one BASE_BACKUP from PostgreSQL straight into the repository.

    lease → source → facts → parent → identity → key records → stream → manifest → facts → document

Everything before the last step is litter that no reader sees; the last step makes the backup exist.
The database is never copied to disk, and memory does not grow with it. An incremental backup
differs in three things: it has a parent, whose manifest the server is given; files come in part;
and where it cannot be taken, a full backup is, which says why.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.parent_choice import NoParent
from shared.errors import PostgresCommandFailed, Refused, StandbyIdle
from shared.event_log import log_event
from shared.jobs.lease import Renewal, hold
from shared.repository import layout
from shared.repository.backups import StoredBackup
from shared.repository.documents import BackupDocument, FullInstead
from shared.repository.key_record import KeyPurpose
from shared.repository.layout import BackupRef
from shared.settings import ClusterSettings
from worker.commands.backup_document import Ingredients, compose_document
from worker.commands.backup_keys import BackupKey, issue_backup_key
from worker.commands.backup_parent import Parent, find_parent
from worker.commands.backup_parts import PartUploads, transfer_pools
from worker.commands.backup_source import BackupSourceServer, choose_source
from worker.commands.backup_stream import (
    StoredStream,
    SystemChanged,
    check_manifest,
    check_wal,
    store_stream,
)
from worker.commands.cluster_identity import register
from worker.commands.cluster_login import conninfo_of
from worker.commands.committed_backups import (
    commit,
    committed_by,
    holder,
    last_committed,
    next_label,
)
from worker.commands.label_proof import check_label
from worker.commands.services import Services, Stopwatch
from worker.commands.source_facts import FactsRecorder
from worker.postgres.backup_manifest import ChecksumAlgorithm
from worker.postgres.backup_manifest import parse as parse_manifest
from worker.postgres.base_backup import (
    BaseBackupOptions,
    Checkpoint,
    Event,
    Start,
    stream_base_backup,
    upload_manifest,
)
from worker.postgres.connection import ReplicationConnection, connect
from worker.postgres.replication import identify_system

# Of what the server says of damaged pages: up to seven lines a file.
_WARNINGS_LOGGED = 50


class IncrementalUnavailable(Refused):
    """No incremental backup can be taken, and the settings do not want a full one instead."""

    code = "incremental-unavailable"
    hint = 'Take a full backup, or set incremental.when_impossible = "full" for the cluster.'


class IncrementalRefused(Refused):
    """The server itself refused to take an incremental backup on the parent that was chosen."""

    code = "incremental-refused"
    hint = "Take a full backup; the fact is the server's own reason."


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """`job_id` makes it idempotent: a backup that this job committed is not taken again."""

    kind: BackupKind = BackupKind.FULL
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """A committed backup and the SHA-256 of its document.

    `source_reason`: why it was read from another server than the settings want; None if it was not.
    `whole_bytes`: of the files that it stands for, as far as it was taken just now.
    """

    label: str
    document: BackupDocument
    digest: str
    source_reason: str | None = None
    whole_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be taken, from where; `instead` says why it is a full backup."""

    source: BackupSourceServer
    facts: FactsRecorder
    job_id: UUID | None
    parent: Parent | None = None
    instead: FullInstead | None = None

    @property
    def kind(self) -> BackupKind:
        return BackupKind.FULL if self.parent is None else BackupKind.INCREMENTAL

    @property
    def parent_backup(self) -> StoredBackup | None:
        return None if self.parent is None else self.parent.backup

    @property
    def parent_document(self) -> BackupDocument | None:
        return None if self.parent is None else self.parent.backup.document


def back_up(services: Services, cluster: ClusterSettings, request: BackupRequest) -> BackupOutcome:
    """Take a backup and commit it; a full one where no incremental can be taken.

    Raises IncrementalUnavailable where the settings want that instead, LeaseHeld while another
    backup of the cluster runs, WrongSystem for a foreign server, LeaseLost before committing what
    somebody else may be replacing, and what PostgreSQL, the keys and the storage raise. After any
    of them nothing new is visible in the repository.
    """
    name = cluster_name(cluster.name)
    lock = layout.lock(name, "backup").path
    ttl = services.settings.worker.lease_seconds
    with hold(services.leases, lock, holder(services, request.job_id), ttl_s=ttl) as lease:
        done = committed_by(services, name, request.job_id)
        if done is not None:
            return BackupOutcome(done.document.label, done.document, done.digest)
        return _back_up_alone(services, cluster, request, lease)


def _back_up_alone(
    services: Services, cluster: ClusterSettings, request: BackupRequest, lease: Renewal
) -> BackupOutcome:
    source = choose_source(services, cluster)
    timeout = services.settings.drill.statement_timeout_s
    facts = FactsRecorder.begin(source.cluster, timeout)
    full = _Task(source, facts, request.job_id)
    if request.kind is BackupKind.FULL:
        return _take(services, full, lease)
    found = find_parent(services, cluster, source, facts.server)
    if isinstance(found, Parent):
        try:
            return _take(services, _Task(source, facts, request.job_id, found), lease)
        except IncrementalRefused as error:
            found = NoParent(error.code, error.fact)
    return _take(services, _full_instead(cluster, full, found), lease)


def _full_instead(cluster: ClusterSettings, full: _Task, why: NoParent) -> _Task:
    if cluster.incremental.when_impossible == "fail":
        raise IncrementalUnavailable(f"cluster {cluster.name}: {why.reason} ({why.code})")
    log_event("full-instead-of-incremental", cluster=cluster.name, code=why.code, fact=why.reason)
    instead = FullInstead(code=why.code, reason=why.reason)
    return _Task(full.source, full.facts, full.job_id, instead=instead)


def _take(services: Services, task: _Task, lease: Renewal) -> BackupOutcome:
    watch, started_at = Stopwatch(services.clocks.monotonic), services.clocks.now()
    name = cluster_name(task.source.cluster.name)
    label = next_label(services, name, task.kind, started_at)
    ref = BackupRef(name, label)
    connection = connect(conninfo_of(task.source.cluster), replication=True)
    try:
        system = str(identify_system(connection).system_identifier)
        identity = register(services, ref.cluster, system)
        key = issue_backup_key(services, identity, ref, KeyPurpose.BACKUP)
        manifest_key = issue_backup_key(services, identity, ref, KeyPurpose.MANIFEST)
        with transfer_pools(services) as pools:
            parts = PartUploads(services, pools, ref)
            watch.lap("prepare")
            stream = _stream(services, connection, task, parts, key)
            watch.lap("stream")
            _refuse_incomplete(task, system, stream)
            _refuse_changed_system(connection, system, stream)
            parts.put(layout.BACKUP_MANIFEST, manifest_key, stream.manifest)
            parts.put(layout.FACTS, key, task.facts.end().to_json())
            next_xid = task.facts.next_xid()
    finally:
        connection.finish()
    document = compose_document(
        Ingredients(
            cluster=identity,
            label=label,
            previous=last_committed(services, ref.cluster),
            parent=task.parent_backup,
            instead_of_incremental=task.instead,
            source=task.facts.source,
            postgres=task.facts.postgres,
            stream=stream,
            next_xid=next_xid,
            parts=parts.stored,
            kid=key.kid,
            job_id=task.job_id,
            started_at=started_at,
            finished_at=services.clocks.now(),
            stream_ms=watch.phases["stream"],
            total_ms=watch.total_ms,
        )
    )
    check_label(stream.backup_label, document, task.parent_document)
    lease.check()
    stored = commit(services, ref, document)
    return BackupOutcome(
        document.label, document, stored.digest, task.source.reason, stream.whole_bytes
    )


def _stream(
    services: Services,
    connection: ReplicationConnection,
    task: _Task,
    parts: PartUploads,
    key: BackupKey,
) -> StoredStream:
    worker, label = services.settings.worker, parts.label
    options = BaseBackupOptions(
        label=f"pgkeep {label}",
        checkpoint=Checkpoint(worker.checkpoint),
        manifest_checksums=ChecksumAlgorithm(worker.manifest_checksums),
        incremental=task.parent is not None,
    )
    services.progress.phase("backup")
    with parts.index(key, label) as index:
        stream = store_stream(
            _events(connection, options, task.parent),
            lambda name: parts.open(name, key),
            index,
            worker.volume_bytes,
            services.progress.advance,
            block_size=task.facts.server.block_size if task.parent else None,
        )
    if stream.page_checksum_failures:
        said = stream.page_checksum_warnings[:_WARNINGS_LOGGED]
        pages = stream.page_checksum_failures
        log_event("backup-suspect", level=logging.WARNING, label=label.text, pages=pages, said=said)
    return stream


def _events(
    connection: ReplicationConnection, options: BaseBackupOptions, parent: Parent | None
) -> Iterator[Event]:
    """What the server refuses before it starts, it refuses because of the parent."""
    try:
        if parent is not None:
            upload_manifest(connection, parent.manifest)
        events = stream_base_backup(connection, options)
        start = next(events)
    except (PostgresCommandFailed, StandbyIdle) as error:
        if parent is None:
            raise
        raise IncrementalRefused(f"on {parent.backup.ref.label}: {error.fact}") from None
    if parent is not None:
        _require_same_timeline(start, parent)
    yield start
    yield from events


def _require_same_timeline(start: Event, parent: Parent) -> None:
    """The choice of the parent may not have known: a standby tells a role without pg_monitor of
    its primary's new timeline only from its next restartpoint on.
    """
    theirs = parent.backup.document.timeline
    if isinstance(start, Start) and start.timeline != theirs:
        raise IncrementalRefused(
            f"on {parent.backup.ref.label}: it is of timeline {theirs}, "
            f"this backup starts on {start.timeline}"
        )


def _refuse_incomplete(task: _Task, system: str, stream: StoredStream) -> None:
    manifest = parse_manifest(stream.manifest)
    check_manifest(manifest, stream, system)
    check_wal(manifest, stream, task.facts.server.wal_segment_size)


def _refuse_changed_system(
    connection: ReplicationConnection, system: str, stream: StoredStream
) -> None:
    identity = identify_system(connection)
    if str(identity.system_identifier) != system or identity.timeline != stream.start.timeline:
        raise SystemChanged(
            f"system {system} on timeline {stream.start.timeline} became "
            f"{identity.system_identifier} on timeline {identity.timeline}"
        )
