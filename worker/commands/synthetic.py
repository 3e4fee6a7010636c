"""`pgkeep backup --synthetic`: a full backup composed of a chain, without its server.

    lease → chain → keys → compose → manifest → facts → backup.json

What PostgreSQL would have to say of such a backup, the chain's newest link has said: positions,
times and facts are that link's. Only the document's `created_at` tells when it was composed, so
that a synthetic full never looks younger than its data. Before the last step nothing is visible.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from uuid import UUID

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.restore_plan import plan_restore
from shared.domain.tablespace_places import TablespaceLocation
from shared.errors import Refused
from shared.event_log import log_event
from shared.jobs.lease import Renewal, hold
from shared.repository import layout
from shared.repository.backups import StoredBackup, find_backup, read_backup
from shared.repository.chains import StoredChain, read_chain
from shared.repository.documents import BackupDocument, BackupLink, SealedObject, Volume
from shared.repository.key_record import KeyPurpose
from shared.repository.layout import BackupRef
from shared.settings import ClusterSettings
from shared.version import VERSION
from worker.commands.backup import BackupOutcome
from worker.commands.backup_keys import BackupKey, issue_backup_key
from worker.commands.backup_parts import PartUploads, transfer_pools
from worker.commands.backup_stream import ArchiveWriter
from worker.commands.chain_labels import checked_label
from worker.commands.chain_reader import read_files
from worker.commands.cluster_identity import register
from worker.commands.committed_backups import (
    commit,
    committed_by,
    holder,
    last_committed,
    synthetic_label,
)
from worker.commands.composed_stream import ComposedManifest, Composition, write_archives
from worker.commands.fetched_files import volume_opener
from worker.commands.opened_chain import OpenedChain, open_chain
from worker.commands.services import Services, Stopwatch
from worker.postgres.backup_manifest import read as read_manifest


class NothingToSynthesize(Refused):
    """The backup is a full one: composing it would make a copy of it."""

    code = "nothing-to-synthesize"
    hint = "Take an incremental backup first, or name one with --label."


class ChainSuspect(Refused):
    """A link of the chain holds pages that the server itself found broken."""

    code = "chain-suspect"
    hint = "Take a full backup, which shows whether the server's pages are still broken."


@dataclass(frozen=True, slots=True)
class SyntheticRequest:
    """`label` names the chain's newest link; None is the newest backup. `job_id` makes it
    idempotent: what this job composed is not composed again.
    """

    label: str | None = None
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class _Composed:
    """What is in the repository when only the document is missing."""

    ref: BackupRef
    kid: str
    volumes: tuple[Volume, ...]
    objects: tuple[SealedObject, ...]


def synthesize(
    services: Services, cluster: ClusterSettings, request: SyntheticRequest
) -> BackupOutcome:
    """Compose a full backup of a chain and commit it; the server is not asked for anything.

    Raises NothingToSynthesize, ChainSuspect, LeaseHeld while a backup of the cluster runs, and
    what reading the chain and writing a backup raise: damage is Corrupt, a missing key Denied.
    After any of them nothing new is visible in the repository.
    """
    name = cluster_name(cluster.name)
    lock = layout.lock(name, "backup").path
    ttl = services.settings.worker.lease_seconds
    with hold(services.leases, lock, holder(services, request.job_id), ttl_s=ttl) as lease:
        stored = committed_by(services, name, request.job_id)
        if stored is None:
            stored = _synthesize_alone(services, name, request, lease)
    return BackupOutcome(stored.document.label, stored.document, stored.digest)


def _synthesize_alone(
    services: Services, cluster: ClusterName, request: SyntheticRequest, lease: Renewal
) -> StoredBackup:
    watch = Stopwatch(services.clocks.monotonic)
    services.progress.phase("plan")
    chain = _chosen(services, cluster, request.label)
    opened = open_chain(services, chain)
    watch.lap("prepare")
    composed = _compose(services, opened)
    watch.lap("compose")
    document = _document(services, chain.newest, composed, watch, request.job_id)
    lease.check()
    log_event("backup-composed", label=document.label, chain=" ".join(chain.labels))
    return commit(services, composed.ref, document)


def _chosen(services: Services, cluster: ClusterName, label: str | None) -> StoredChain:
    ref = find_backup(services.store, cluster, label)
    if ref.kind is BackupKind.FULL:
        raise NothingToSynthesize(f"backup {ref.label} is a full one")
    newest = read_backup(services.store, ref, services.pinned)
    chain = read_chain(services.store, newest, services.pinned)
    for link in chain.links:
        if link.document.suspect:
            failures = link.document.page_checksum_failures
            raise ChainSuspect(f"backup {link.ref.label} has {failures} page checksum failures")
    return chain


def _compose(services: Services, chain: OpenedChain) -> _Composed:
    """Everything but the document, under keys of its own."""
    newest = chain.newest.stored
    ref = BackupRef(newest.ref.cluster, synthetic_label(newest.ref.label))
    identity = register(services, ref.cluster, newest.document.system_identifier)
    with transfer_pools(services) as pools:
        composition = _composition(chain, pools.transfer)
        key = issue_backup_key(services, identity, ref, KeyPurpose.BACKUP)
        manifest_key = issue_backup_key(services, identity, ref, KeyPurpose.MANIFEST)
        parts = PartUploads(services, pools, ref)
        volumes = _write(services, composition, parts, key)
        parts.put(layout.BACKUP_MANIFEST, manifest_key, b"".join(composition.manifest.text()))
        facts = b"".join(chain.newest.object_chunks(layout.FACTS, pools.transfer))
        parts.put(layout.FACTS, key, facts)
    return _Composed(ref, key.kid, tuple(volumes), tuple(parts.stored))


def _composition(chain: OpenedChain, executor: Executor) -> Composition:
    """Raises NotRestorable, ChainBroken, ManifestInvalid, and what opening the parts does."""
    document = chain.newest.stored.document
    indexes, volumes = chain.indexes(executor), volume_opener(chain)
    places = [
        TablespaceLocation(str(item.oid), item.path, item.path, item.in_place)
        for item in document.tablespaces
    ]
    plan = plan_restore(indexes, places, block_size=chain.block_size)
    label = checked_label(chain, indexes, volumes, executor)
    manifest = read_manifest(chain.newest.object_chunks(layout.BACKUP_MANIFEST, executor))
    return Composition(
        newest=indexes[-1],
        archives=tuple(dict.fromkeys(volume.archive for volume in document.volumes)),
        file_bytes=plan.file_bytes,
        files=read_files(volumes, plan, executor),
        label=label,
        manifest=ComposedManifest(manifest),
        mtime=int(document.finished_at.timestamp()),
    )


def _write(
    services: Services, composition: Composition, parts: PartUploads, key: BackupKey
) -> list[Volume]:
    services.progress.phase("compose")
    volume_bytes = services.settings.worker.volume_bytes
    with parts.index(key, key.ref.label) as index:

        def open_archive(archive: str) -> ArchiveWriter:
            return ArchiveWriter(
                archive, lambda name: parts.open(name, key), index, volume_bytes, None
            )

        return write_archives(composition, open_archive, services.progress.advance)


def _document(
    services: Services,
    newest: StoredBackup,
    composed: _Composed,
    watch: Stopwatch,
    job_id: UUID | None,
) -> BackupDocument:
    """Of the data all that the newest link's document says, of the backup what is its own."""
    previous = last_committed(services, newest.ref.cluster) or newest
    own = {
        "label": composed.ref.label.text,
        "kind": BackupKind.FULL,
        "parent": None,
        "depth": 0,
        "composed_of": BackupLink(label=newest.document.label, digest=newest.digest),
        "previous": BackupLink(label=previous.document.label, digest=previous.digest),
        "counter": previous.document.counter + 1,
        "created_at": services.clocks.now(),
        "kid": composed.kid,
        "volumes": composed.volumes,
        "objects": composed.objects,
        "stream_ms": watch.phases["compose"],
        "total_ms": watch.total_ms,
        "job_id": job_id,
        "tool": f"pgkeep {VERSION}",
    }
    return BackupDocument.model_validate({**dict(newest.document), **own})
