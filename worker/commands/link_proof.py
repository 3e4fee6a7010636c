"""Proof of one backup by itself: every stored byte, and that what a restore takes from it is so.

Of an incremental one this proves that it is whole and builds on the parent that its document names;
that the chain below it is whole is for worker.commands.chain_proof to say.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shared.domain.backup_index import BackupIndex
from shared.domain.wal_segment import segments_between
from shared.errors import Corrupt, NotFound
from shared.repository import layout
from shared.repository.documents import BackupDocument, SealedObject
from worker.commands.file_proof import ArchiveProof, FileProof
from worker.commands.index_proof import check_parts, check_volume, shown
from worker.commands.label_proof import check_label
from worker.commands.opened_backup import OpenedBackup
from worker.commands.part_proof import Tally, read_part
from worker.postgres.backup_label import BACKUP_LABEL
from worker.postgres.backup_manifest import BackupManifest
from worker.postgres.backup_manifest import read as read_manifest

T = TypeVar("T")


class WalMissing(Corrupt):
    """WAL between a backup's start and stop is not in the repository."""

    code = "wal-missing"
    hint = "The backup cannot reach consistency; take a new one."


class ManifestDiffers(Corrupt):
    """PostgreSQL's manifest of another backup."""

    code = "manifest-differs"


@dataclass(frozen=True, slots=True)
class _Inventory:
    """What PostgreSQL and we wrote down about the files."""

    manifest: BackupManifest
    index: BackupIndex


def prove_link(
    backup: OpenedBackup, parent: BackupDocument | None, tally: Tally, executor: Executor
) -> bool:
    """Note every damage; False when manifest or index cannot even be read.

    `parent` None: there is none, or it is not known.
    """
    document = backup.stored.document
    for item in document.objects:
        _attempt(tally, item.name, partial(_read_object, backup, item, tally, executor))
    inventory = _inventory(backup, tally, executor)
    if inventory is None:
        return False
    check_parts(inventory.index, document, tally.note)
    files = FileProof(inventory.manifest, tally.note)
    ended = []
    for archive in sorted({volume.archive for volume in document.volumes}):
        prove = partial(_prove_archive, backup, archive, files, inventory.index, tally, executor)
        ended.append(_attempt(tally, f"archive {archive}", prove))
    if all(ended):  # otherwise nobody knows what would have come
        files.finish()
    tally.files = files.files
    if files.backup_label is not None:
        check = partial(check_label, files.backup_label, document, parent)
        _attempt(tally, shown(BACKUP_LABEL), check)
    return True


def _attempt(tally: Tally, where: str, work: Callable[[], T]) -> T | None:
    """What `work` gives; None, and a note, when it finds damage."""
    try:
        return work()
    except (Corrupt, NotFound) as error:
        tally.note(where, error)
        return None


def _read_object(
    backup: OpenedBackup, item: SealedObject, tally: Tally, executor: Executor
) -> None:
    for _ in read_part(backup.sealed_object(item.name), item, tally, executor):
        pass


def _inventory(backup: OpenedBackup, tally: Tally, executor: Executor) -> _Inventory | None:
    manifest = _attempt(tally, layout.BACKUP_MANIFEST, lambda: _manifest(backup, executor))
    index = _attempt(tally, layout.INDEX, lambda: _index(backup, executor))
    return None if manifest is None or index is None else _Inventory(manifest, index)


def _manifest(backup: OpenedBackup, executor: Executor) -> BackupManifest:
    manifest = read_manifest(backup.object_chunks(layout.BACKUP_MANIFEST, executor))
    _check_manifest(manifest, backup.stored.document)
    return manifest


def _index(backup: OpenedBackup, executor: Executor) -> BackupIndex:
    index = backup.index(executor)
    _check_wal(index, backup.stored.document)
    return index


def _prove_archive(
    backup: OpenedBackup,
    archive: str,
    files: FileProof,
    index: BackupIndex,
    tally: Tally,
    executor: Executor,
) -> bool:
    """True when it was read to its end."""
    document = backup.stored.document
    proof = ArchiveProof(archive, files, index, document.postgres.block_size)
    volumes = [item for item in document.volumes if item.archive == archive]
    for volume in sorted(volumes, key=lambda item: item.number):
        blob = backup.volume(volume.name)
        for frame in read_part(blob, volume, tally, executor):
            proof.feed(frame)
        check = partial(check_volume, index, volume, blob.frame_table().sizes())
        _attempt(tally, layout.INDEX, check)
    proof.finish()
    return True


def _check_manifest(manifest: BackupManifest, document: BackupDocument) -> None:
    """The manifest is this backup's: no other of one cluster has its range of WAL."""
    if manifest.system_identifier not in {None, int(document.system_identifier)}:
        raise ManifestDiffers(f"the manifest is that of system {manifest.system_identifier}")
    told = {(item.timeline, item.start, item.end) for item in manifest.wal_ranges}
    if told != {(item.timeline, item.start, item.end) for item in document.wal}:
        ranges = ", ".join(f"{start} to {end}" for _, start, end in sorted(told))
        raise ManifestDiffers(f"the manifest is that of a backup from {ranges}")


def _check_wal(index: BackupIndex, document: BackupDocument) -> None:
    """A backup that carries its WAL holds every segment from start to stop."""
    if not document.wal_included:
        return
    members, size = index.members, document.postgres.wal_segment_size
    paths = ((number, members.restored_path(number)) for number in range(len(members)))
    held = {path: members.size(number) for number, path in paths if path.startswith(b"pg_wal/")}
    for needed in document.wal:
        for name in segments_between(needed.timeline, needed.start, needed.end, size):
            if held.get(b"pg_wal/" + name.encode()) != size:
                raise WalMissing(f"WAL segment {name} is not in backup {document.label}")
