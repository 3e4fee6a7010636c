"""`pgkeep restore`: a data directory out of the repository, planned before a byte is written."""

import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from shared.domain.cluster import ClusterName
from shared.domain.fetch_plan import Fetch
from shared.domain.file_versions import PlannedFile
from shared.domain.recovery_target import TargetAction
from shared.domain.restore_plan import RestorePlan, plan_restore
from shared.domain.tablespace_places import TablespaceLocation, place_tablespaces
from shared.errors import InvalidInput, Refused
from shared.repository.backups import StoredBackup, find_backup, read_backup
from shared.repository.documents import BackupDocument
from worker.commands.opened_backup import OpenedBackup, open_backup, require_complete
from worker.commands.recovery import (
    PlannedRecovery,
    RecoveryRequest,
    plan_to_target,
    recovery_of,
)
from worker.commands.services import Services, Stopwatch
from worker.commands.wal_server import restore_command
from worker.pipeline.file_writer import Owner, TargetTree, disk_errors
from worker.pipeline.in_order import map_in_order
from worker.pipeline.sealed_download import SealedBlob
from worker.postgres.recovery_settings import (
    STANDBY_SIGNAL,
    Recovery,
    prepare_recovery,
    relink_tablespaces,
)

# The first estimate before a drill has measured one: a cautious single stream from Blob Storage.
ASSUMED_BYTES_PER_SECOND = 200e6
# Room for WAL, logs and the file system's own needs, beside the files themselves.
HEADROOM = 64 << 20
# Of the WAL that is replayed, this much lies in pg_wal at once: max_wal_size as PostgreSQL has it.
REPLAY_ROOM = 1 << 30


class DiskTooSmall(Refused):
    """The file system of the target has less room than the plan needs."""

    code = "disk-too-small"
    hint = "Choose a larger disk, or map tablespaces elsewhere with --tablespace-mapping OLD=NEW."


class OwnerNeeded(Refused):
    """Restoring as root without saying whose the files shall be."""

    code = "owner-needed"
    hint = "Give --owner ACCOUNT or drill.run_as: PostgreSQL refuses to run as root."


class OwnerUnknown(InvalidInput):
    """An account that this host does not have."""

    code = "owner-unknown"
    hint = "Name an existing account, usually postgres."


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

    `planned` is None for a restore that ends with its backup.
    """

    request: RestoreRequest
    backup: OpenedBackup
    plan: RestorePlan
    manifest: bytes
    tree: TargetTree
    planned: PlannedRecovery | None

    def recovery(self, command: str | None) -> Recovery:
        """What postgresql.auto.conf shall say; `command` fetches WAL, if any is planned."""
        document = self.backup.stored.document
        return recovery_of(self.request.recovery, self.planned, document, command)

    @property
    def estimated_seconds(self) -> float:
        return self.plan.estimated_seconds(ASSUMED_BYTES_PER_SECOND)


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """What was written, and milliseconds per phase: plan, keys, fetch_apply."""

    label: str
    target: Path
    files: int
    bytes: int
    phases_ms: dict[str, int]
    planned: PlannedRecovery | None = None
    action: TargetAction = TargetAction.PROMOTE


def restore(services: Services, request: RestoreRequest) -> RestoreOutcome:
    """Plan and apply; the operator's server will fetch WAL from the agent on its host.

    Raises before writing whatever can be known before.
    """
    watch = Stopwatch(services.clocks.monotonic)
    prepared = prepare_restore(services, request, watch)
    apply_restore(services, prepared, restore_command(services.settings.wal.socket))
    watch.lap("fetch_apply")
    return outcome_of(prepared, watch)


def outcome_of(prepared: PreparedRestore, watch: Stopwatch) -> RestoreOutcome:
    return RestoreOutcome(
        label=prepared.plan.label,
        target=prepared.request.target,
        files=len(prepared.plan.files),
        bytes=prepared.plan.file_bytes,
        phases_ms=watch.phases,
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
    require_complete(services, chosen.stored)
    places = _places(request, chosen.stored.document)
    tree = TargetTree(request.target, places, owner)
    tree.check_empty()
    watch.lap("plan")
    services.progress.phase("keys")
    backup = open_backup(services, chosen.stored)
    watch.lap("keys")
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        index = backup.index(executor)
        manifest = backup.manifest(executor)
    block_size = chosen.stored.document.postgres.block_size
    plan = plan_restore([index], places, block_size=block_size, reasons=chosen.reasons)
    wal_bytes = chosen.planned.plan.wal_bytes if chosen.planned else 0
    _check_room(plan, request.target, HEADROOM + min(wal_bytes, REPLAY_ROOM))
    watch.lap("plan")
    return PreparedRestore(request, backup, plan, manifest, tree, chosen.planned)


def apply_restore(services: Services, prepared: PreparedRestore, command: str | None) -> None:
    """Fetch, open, decompress and write in parallel; pg_control gets its name last.

    `command` becomes the restore_command of a recovery that goes beyond the backup.
    """
    plan, tree = prepared.plan, prepared.tree
    services.progress.phase("fetch+apply")
    threads = services.settings.worker.transfer_threads
    try:
        tree.prepare(plan.directories, f"restoring backup {plan.label}")
        with ThreadPoolExecutor(threads) as executor:
            volumes = {name: prepared.backup.volume(name) for name in _volume_names(plan)}
            work = partial(_apply_fetch, volumes, plan, tree)
            done, total = 0, plan.file_bytes
            for written in map_in_order(executor, work, plan.fetches, depth=threads + 1):
                done += written
                services.progress.advance(done, total)
            for file in plan.files:
                if not file.size:
                    tree.touch(file)
            with disk_errors(os.fsencode(tree.root)):
                manifest = _own_files(prepared, command)
            # The copy is no standby: prepare_recovery has removed the source's signal.
            kept = [file for file in plan.files if file.path != os.fsencode(STANDBY_SIGNAL)]
            tree.finish([*kept, manifest], executor, sync=prepared.request.sync)
    finally:
        tree.close()


def find_owner(account: str | None) -> Owner | None:
    """None for a normal user, who owns what it writes. Raises OwnerNeeded, OwnerUnknown."""
    if os.geteuid() != 0:
        return None
    if account is None:
        raise OwnerNeeded("pgkeep runs as root and nobody said who shall own the files")
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise OwnerUnknown(f"this host has no account {account!r}") from None
    return Owner(entry.pw_uid, entry.pw_gid)


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


def _own_files(prepared: PreparedRestore, command: str | None) -> PlannedFile:
    """What a restore adds to PostgreSQL's own files: how to recover, and their manifest."""
    tree, mode = prepared.tree, 0o600
    manifest = PlannedFile(b"backup_manifest", len(prepared.manifest), mode)
    tree.write(manifest, 0, memoryview(prepared.manifest))
    prepare_recovery(prepared.request.target, prepared.recovery(command))
    outside = {p.oid: p.location for p in prepared.plan.tablespaces if not p.in_place}
    relink_tablespaces(prepared.request.target, outside)
    return manifest


def _apply_fetch(
    volumes: Mapping[str, SealedBlob], plan: RestorePlan, tree: TargetTree, fetch: Fetch
) -> int:
    """Returns the bytes written to files."""
    written = 0
    plains = volumes[fetch.volume].frames(fetch)
    for frame, plain in zip(fetch.frames, plains, strict=True):
        view = memoryview(plain)
        for extent in frame.extents:
            piece = view[extent.plain_offset : extent.plain_offset + extent.length]
            tree.write(plan.files[extent.file], extent.file_offset, piece)
            written += extent.length
    return written


def _volume_names(plan: RestorePlan) -> list[str]:
    return sorted({fetch.volume for fetch in plan.fetches})


def _check_room(plan: RestorePlan, target: Path, more: int) -> None:
    existing = next(path for path in (target, *target.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    inside = sum(file.size for file in plan.files if not _outside(plan, file))
    if free < inside + more:
        raise DiskTooSmall(f"{existing} has {free} bytes free, the restore needs {inside + more}")


def _outside(plan: RestorePlan, file: PlannedFile) -> bool:
    return any(
        not place.in_place and file.path.startswith(b"pg_tblspc/%s/" % place.oid.encode())
        for place in plan.tablespaces
    )
