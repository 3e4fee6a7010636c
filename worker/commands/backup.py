"""`pgkeep backup`: one BASE_BACKUP from PostgreSQL straight into the repository.

    lease → identity → preflight → facts → key records → stream → manifest → facts → backup.json

Everything before the last step is litter that no reader sees; the last step makes the backup exist.
The database is never copied to disk, and memory does not grow with it.
"""

from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import ClusterName, cluster_name
from shared.errors import PgkeepError, Refused
from shared.event_log import log_event
from shared.jobs.lease import Renewal, hold
from shared.repository import layout
from shared.repository.backups import StoredBackup, list_backups, read_backup
from shared.repository.documents import BackupDocument
from shared.repository.key_record import KeyPurpose
from shared.repository.layout import BackupRef
from shared.repository.signatures import document_digest, sign_document
from shared.settings import ClusterSettings
from worker.commands.backup_document import Ingredients, compose_document
from worker.commands.backup_keys import BackupKey, issue_backup_key
from worker.commands.backup_parts import PartUploads
from worker.commands.backup_stream import StoredStream, check_manifest, store_stream
from worker.commands.cluster_identity import register, signer_of
from worker.commands.services import Services, Stopwatch
from worker.commands.source_facts import FactsRecorder, conninfo_of
from worker.pipeline.sealed_upload import TransferPools
from worker.postgres.backup_manifest import ChecksumAlgorithm
from worker.postgres.backup_manifest import parse as parse_manifest
from worker.postgres.base_backup import BaseBackupOptions, Checkpoint, stream_base_backup
from worker.postgres.connection import ReplicationConnection, connect
from worker.postgres.replication import identify_system

# Behind how many later backups a job that is delivered again may find its own.
_LOOK_BACK = 16


class IncrementalUnavailable(Refused):
    """An incremental backup was asked of a release that takes full backups only."""

    code = "incremental-unavailable"
    hint = "Take a full backup; nothing that is called incremental is ever a full in disguise."


class SystemChanged(Refused):
    """Another server answers at the end of the backup than at its start: a failover between."""

    code = "system-changed"
    hint = "Nothing was committed. Run the backup again when the failover is over."


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """`job_id` makes it idempotent: a backup that this job committed is not taken again."""

    kind: BackupKind = BackupKind.FULL
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """A committed backup and the SHA-256 of its document."""

    label: str
    document: BackupDocument
    digest: str


def back_up(services: Services, cluster: ClusterSettings, request: BackupRequest) -> BackupOutcome:
    """Take a backup and commit it.

    Raises LeaseHeld while another backup of the cluster runs, WrongSystem for a foreign server,
    LeaseLost before committing what somebody else may be replacing, and what PostgreSQL, the
    keys and the storage raise. After any of them nothing new is visible in the repository.
    """
    if request.kind is not BackupKind.FULL:
        raise IncrementalUnavailable(f"cluster {cluster.name}: only full backups can be taken")
    name = cluster_name(cluster.name)
    lock = layout.lock(name, "backup").path
    ttl = services.settings.worker.lease_seconds
    with hold(services.leases, lock, _holder(services, request), ttl_s=ttl) as lease:
        done = _committed_by(services, name, request.job_id)
        return done or _back_up_alone(services, cluster, request, lease)


def _holder(services: Services, request: BackupRequest) -> str:
    return f"{services.host} ({f'job {request.job_id}' if request.job_id else 'by hand'})"


def _committed_by(
    services: Services, cluster: ClusterName, job_id: UUID | None
) -> BackupOutcome | None:
    if job_id is None:
        return None
    for ref in islice(_newest_first(services, cluster), _LOOK_BACK):
        stored = _believed(services, ref)
        if stored is not None and stored.document.job_id == job_id:
            return BackupOutcome(stored.document.label, stored.document, stored.digest)
    return None


def _back_up_alone(
    services: Services, cluster: ClusterSettings, request: BackupRequest, lease: Renewal
) -> BackupOutcome:
    watch, started_at = Stopwatch(services.clocks.monotonic), services.clocks.now()
    connection = connect(conninfo_of(cluster), replication=True)
    try:
        system = str(identify_system(connection).system_identifier)
        identity = register(services, cluster_name(cluster.name), system)
        label = BackupLabel.new(request.kind, started_at)
        ref = BackupRef(cluster_name(cluster.name), label)
        facts = FactsRecorder.begin(cluster, services.settings.drill.statement_timeout_s)
        key = issue_backup_key(services, identity, ref, KeyPurpose.BACKUP)
        manifest_key = issue_backup_key(services, identity, ref, KeyPurpose.MANIFEST)
        with TransferPools(
            services.settings.worker.compression_threads,
            services.settings.worker.transfer_threads,
            services.settings.worker.compression_level,
        ) as pools:
            parts = PartUploads(services, pools, ref)
            watch.lap("prepare")
            stream = _stream(services, connection, parts, key, label)
            watch.lap("stream")
            check_manifest(parse_manifest(stream.manifest), stream, system)
            _refuse_changed_system(connection, system, stream)
            parts.put(layout.BACKUP_MANIFEST, manifest_key, stream.manifest)
            parts.put(layout.FACTS, key, facts.end().to_json())
            next_xid = facts.next_xid()
    finally:
        connection.finish()
    document = compose_document(
        Ingredients(
            cluster=identity,
            label=label,
            previous=_previous(services, ref),
            source=facts.source,
            postgres=facts.postgres,
            stream=stream,
            next_xid=next_xid,
            parts=parts.stored,
            kid=key.kid,
            job_id=request.job_id,
            started_at=started_at,
            finished_at=services.clocks.now(),
            stream_ms=watch.phases["stream"],
            total_ms=watch.total_ms,
        )
    )
    lease.check()
    return _commit(services, ref, document)


def _stream(
    services: Services,
    connection: ReplicationConnection,
    parts: PartUploads,
    key: BackupKey,
    label: BackupLabel,
) -> StoredStream:
    worker = services.settings.worker
    options = BaseBackupOptions(
        label=f"pgkeep {label}",
        checkpoint=Checkpoint(worker.checkpoint),
        manifest_checksums=ChecksumAlgorithm(worker.manifest_checksums),
    )
    services.progress.phase("backup")
    with parts.index(key, label) as index:
        stream = store_stream(
            stream_base_backup(connection, options),
            lambda name: parts.open(name, key),
            index,
            worker.volume_bytes,
            services.progress.advance,
        )
    if stream.page_checksum_failures:
        log_event("backup-suspect", label=label, pages=stream.page_checksum_failures)
    return stream


def _refuse_changed_system(
    connection: ReplicationConnection, system: str, stream: StoredStream
) -> None:
    identity = identify_system(connection)
    if str(identity.system_identifier) != system or identity.timeline != stream.start.timeline:
        raise SystemChanged(
            f"system {system} on timeline {stream.start.timeline} became "
            f"{identity.system_identifier} on timeline {identity.timeline}"
        )


def _previous(services: Services, ref: BackupRef) -> StoredBackup | None:
    """The newest earlier backup that can be believed: a damaged one must not stop the next."""
    for candidate in _newest_first(services, ref.cluster):
        stored = _believed(services, candidate)
        if stored is not None:
            return stored
    return None


def _newest_first(services: Services, cluster: ClusterName) -> list[BackupRef]:
    return sorted(list_backups(services.store, cluster), key=lambda ref: ref.label, reverse=True)


def _believed(services: Services, ref: BackupRef) -> StoredBackup | None:
    try:
        return read_backup(services.store, ref, services.pinned)
    except PgkeepError as error:
        if error.retryable:
            raise
        log_event("backup-document-refused", label=ref.label, code=error.code, fact=error.fact)
        return None


def _commit(services: Services, ref: BackupRef, document: BackupDocument) -> BackupOutcome:
    raw = sign_document(document, signer_of(services))
    services.store.create(ref.document, raw)
    log_event("backup-committed", cluster=ref.cluster, label=ref.label)
    return BackupOutcome(document.label, document, document_digest(raw))
