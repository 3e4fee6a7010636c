"""`pgkeep restore`: a data directory out of the repository, planned before a byte is written.

An incremental backup is restored from its chain, in place: of every file the newest blocks are
fetched from wherever they lie and written where they belong, once.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from shared.domain.cluster import ClusterName
from shared.domain.file_versions import PlannedFile
from shared.domain.recovery_target import TargetAction
from shared.domain.restore_plan import RestorePlan, plan_restore
from shared.domain.tablespace_places import TablespaceLocation, place_tablespaces
from shared.repository.backups import StoredBackup, find_backup, read_backup
from shared.repository.chains import read_chain
from shared.repository.documents import BackupDocument
from worker.commands.chain_labels import checked_label
from worker.commands.chain_manifest import (
    MadeEntries,
    ManifestDraft,
    draft_manifest,
    manifest_text,
)
from worker.commands.expired_meanwhile import told_if_expired
from worker.commands.fetched_files import VolumeOpener, volume_opener, write_files
from worker.commands.file_owner import find_owner
from worker.commands.opened_backup import OpenedBackup
from worker.commands.opened_chain import OpenedChain, open_chain
from worker.commands.recovery import (
    PlannedRecovery,
    RecoveryRequest,
    plan_to_target,
    recovery_of,
)
from worker.commands.services import Services, Stopwatch
from worker.commands.wal_server import restore_command
from worker.pipeline.disk_room import require_room
from worker.pipeline.file_writer import TargetTree, disk_errors
from worker.pipeline.in_order import map_in_order
from worker.postgres.backup_label import BACKUP_LABEL
from worker.postgres.recovery_settings import Recovery, prepare_recovery, relink_tablespaces

# The first estimate before a drill has measured one: a cautious single stream from Blob Storage.
ASSUMED_BYTES_PER_SECOND = 200e6
# Room for WAL, logs and the file system's own needs, beside the files themselves.
HEADROOM = 64 << 20
_MAIN_CONFIGURATION = b"postgresql.conf"
# Of the WAL that is replayed, this much lies in pg_wal at once: max_wal_size as PostgreSQL has it.
REPLAY_ROOM = 1 << 30


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """`label` None means the newest backup. `sync` False is for throw-away copies only.

    With `tablespaces_below`, every tablespace goes to a directory of its OID there: a copy beside
    its living source must never touch the source's paths.
    """

    cluster: ClusterName
    label: str | None
    target: Path
    tablespace_mapping: Mapping[str, str] = field(default_factory=dict)
    tablespaces_below: Path | None = None
    owner: str | None = None
    sync: bool = True
    recovery: RecoveryRequest = field(default_factory=RecoveryRequest)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A backup, the way from it to a target beyond its end, and why this one."""

    stored: StoredBackup
    planned: PlannedRecovery | None = None
    reasons: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """Everything known before the first byte is written.

    The plan's files are all but backup_label, which shall hold `label`. `planned` is None for a
    restore that ends with its backup.
    """

    request: RestoreRequest
    chain: OpenedChain
    volumes: VolumeOpener
    plan: RestorePlan
    label: bytes
    manifest: ManifestDraft
    tree: TargetTree
    planned: PlannedRecovery | None

    @property
    def backup(self) -> OpenedBackup:
        """The one that is restored: of a chain the newest."""
        return self.chain.newest

    def recovery(self, command: str | None) -> Recovery:
        """What postgresql.auto.conf shall say; `command` fetches WAL, if any is planned."""
        document = self.backup.stored.document
        return recovery_of(self.request.recovery, self.planned, document, command)

    @property
    def estimated_seconds(self) -> float:
        return self.plan.estimated_seconds(ASSUMED_BYTES_PER_SECOND)


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """What was written, and milliseconds per phase: plan, keys, fetch_apply.

    `chain` are the backups that were read, the full first; `fetched_bytes` so much of them.
    `configured`: it holds a postgresql.conf, which on some systems lies elsewhere.
    """

    cluster: ClusterName
    label: str
    chain: tuple[str, ...]
    target: Path
    files: int
    bytes: int
    fetched_bytes: int
    phases_ms: dict[str, int]
    configured: bool = True
    planned: PlannedRecovery | None = None
    action: TargetAction = TargetAction.PROMOTE


def restore(services: Services, request: RestoreRequest) -> RestoreOutcome:
    """Plan and apply; the operator's server will fetch WAL from the agent on its host.

    Raises before writing whatever can be known before.
    """
    watch = Stopwatch(services.clocks.monotonic)
    prepared = prepare_restore(services, request, watch)
    command = restore_command(services.settings.wal.socket, request.cluster)
    fetched = apply_restore(services, prepared, command)
    watch.lap("fetch_apply")
    return outcome_of(prepared, fetched, watch)


def outcome_of(prepared: PreparedRestore, fetched_bytes: int, watch: Stopwatch) -> RestoreOutcome:
    return RestoreOutcome(
        cluster=prepared.request.cluster,
        label=prepared.plan.label,
        chain=prepared.plan.chain,
        target=prepared.request.target,
        files=len(prepared.plan.files),
        bytes=prepared.plan.file_bytes,
        fetched_bytes=fetched_bytes,
        phases_ms=watch.phases,
        configured=any(file.path == _MAIN_CONFIGURATION for file in prepared.plan.files),
        planned=prepared.planned,
        action=prepared.request.recovery.action,
    )


def plan_only(services: Services, request: RestoreRequest) -> PreparedRestore:
    """What `--dry-run` shows."""
    return prepare_restore(services, request, Stopwatch(services.clocks.monotonic))


def prepare_restore(
    services: Services, request: RestoreRequest, watch: Stopwatch, chosen: Chosen | None = None
) -> PreparedRestore:
    """Choose, authenticate, unwrap, plan, and look at the target. Writes nothing."""
    services.progress.phase("plan")
    owner = find_owner(request.owner)
    chosen = chosen or _choose(services, request)
    stored = read_chain(services.store, chosen.stored, services.pinned)
    places = _places(request, chosen.stored.document)
    tree = TargetTree(request.target, places, owner)
    tree.check_empty()
    watch.lap("plan")
    services.progress.phase("keys")
    with told_if_expired(services, stored.refs):
        chain = open_chain(services, stored)
    watch.lap("keys")
    with (
        told_if_expired(services, stored.refs),
        ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor,
    ):
        indexes, volumes = chain.indexes(executor), volume_opener(chain)
        label = checked_label(chain, indexes, volumes, executor)
        plan = plan_restore(
            indexes,
            places,
            block_size=chain.block_size,
            reasons=[*chosen.reasons, *_chain_reason(stored.labels)],
            without=(BACKUP_LABEL,),
        )
        manifest = draft_manifest(chain, plan, executor)
    wal_bytes = chosen.planned.plan.wal_bytes if chosen.planned else 0
    _check_room(plan, request.target, HEADROOM + min(wal_bytes, REPLAY_ROOM))
    watch.lap("plan")
    return PreparedRestore(request, chain, volumes, plan, label, manifest, tree, chosen.planned)


def apply_restore(services: Services, prepared: PreparedRestore, command: str | None) -> int:
    """Fetch, open, decompress and write in parallel; pg_control gets its name last.

    `command` becomes the restore_command of a recovery that goes beyond the backup. Returns the
    stored bytes that were read.
    """
    plan, tree, sync = prepared.plan, prepared.tree, prepared.request.sync
    services.progress.phase("fetch+apply")
    try:
        tree.prepare(plan.directories, f"restoring backup {plan.label}")
        with (
            told_if_expired(services, [link.stored.ref for link in prepared.chain.links]),
            ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor,
        ):
            made = MadeEntries(prepared.manifest, tree, executor)
            fetched = write_files(services, executor, prepared.volumes, plan, tree, made.add)
            own = _own_files(prepared, made)
            if sync:
                written = itertools.chain(plan.files, own)
                for _ in map_in_order(executor, tree.flush, written, depth=16):
                    pass
        with disk_errors(os.fsencode(tree.root)):
            _steer_recovery(prepared, command)
        tree.finish(sync=sync)
    finally:
        tree.close()
    return fetched


def _choose(services: Services, request: RestoreRequest) -> Chosen:
    if request.recovery.needs_archive:
        planned = plan_to_target(services, request.cluster, request.label, request.recovery)
        return Chosen(planned.backup, planned, planned.plan.reasons)
    ref = find_backup(services.store, request.cluster, request.label)
    why = "it was named" if request.label else "it is the newest"
    stored = read_backup(services.store, ref, services.pinned)
    recovery_of(request.recovery, None, stored.document, None)  # refuses what has no end to act at
    return Chosen(stored, None, [f"backup {ref.label}: {why}"])


def _places(request: RestoreRequest, document: BackupDocument) -> list[TablespaceLocation]:
    originals = {str(item.oid): item.path for item in document.tablespaces}
    mapping = dict(request.tablespace_mapping)
    if request.tablespaces_below is not None:
        below = request.tablespaces_below
        mapping |= {
            item.path: str(below / str(item.oid))
            for item in document.tablespaces
            if not item.in_place
        }
    return place_tablespaces(originals, mapping, str(request.target))


def _chain_reason(labels: Sequence[str]) -> Iterator[str]:
    if len(labels) > 1:
        yield "it is restored from the chain " + ", ".join(labels)


def _own_files(prepared: PreparedRestore, made: MadeEntries) -> list[PlannedFile]:
    """backup_label, and the manifest of everything that is there by now."""
    tree, mode = prepared.tree, 0o600
    label = PlannedFile(BACKUP_LABEL, len(prepared.label), mode)
    tree.write(label, [(0, memoryview(prepared.label))])
    made.add(label)
    manifest, size = PlannedFile(b"backup_manifest", 0, mode), 0
    for chunk in manifest_text(made.finish()):
        size += tree.write(manifest, [(size, memoryview(chunk))])
    return [label, manifest]


def _steer_recovery(prepared: PreparedRestore, command: str | None) -> None:
    """How the copy recovers, and where its tablespaces lie."""
    target = prepared.request.target
    prepare_recovery(target, prepared.recovery(command))
    outside = {p.oid: p.location for p in prepared.plan.tablespaces if not p.in_place}
    relink_tablespaces(target, outside)


def _check_room(plan: RestorePlan, target: Path, more: int) -> None:
    outside = tuple(
        b"pg_tblspc/%s/" % place.oid.encode() for place in plan.tablespaces if not place.in_place
    )
    inside = sum(file.size for file in plan.files if not file.path.startswith(outside))
    require_room(target, inside + more)
