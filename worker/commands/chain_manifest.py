"""The backup_manifest of what a restore makes.

A full backup keeps PostgreSQL's own, byte for byte. The newest link's of a chain describes parts
where the result has whole files: for those, and for backup_label, the entries are computed from
what was written, so that pg_verifybackup can judge the result.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final

from shared.domain.backup_index import INCREMENTAL_PREFIX, is_incremental, whole_path
from shared.domain.file_versions import PlannedFile
from shared.domain.restore_plan import RestorePlan
from shared.errors import ManifestInvalid
from shared.repository import layout
from worker.commands.opened_chain import OpenedChain
from worker.pipeline.file_writer import TargetTree
from worker.postgres.backup_manifest import BackupManifest, file_checksum, read
from worker.postgres.manifest_files import ManifestFile, ManifestFiles
from worker.postgres.manifest_text import ManifestEntry, manifest_chunks

_PIECE: Final = 1 << 20
_PENDING_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ManifestDraft:
    """`kept` for a backup that is restored as it was taken; else `newest`, to be corrected."""

    kept: bytes
    newest: BackupManifest | None


def draft_manifest(chain: OpenedChain, plan: RestorePlan, executor: Executor) -> ManifestDraft:
    """Raises ManifestInvalid for one that does not describe the newest backup."""
    if len(chain.links) == 1:
        return ManifestDraft(chain.newest.manifest(executor), None)
    newest = read(chain.newest.object_chunks(layout.BACKUP_MANIFEST, executor))
    for file in plan.files:
        if file.composed:
            _part_entry(newest, file.path)
    return ManifestDraft(b"", newest)


class MadeEntries:
    """Entries of files that no backup holds like this, computed from what lies in the target."""

    def __init__(self, draft: ManifestDraft, tree: TargetTree, executor: Executor) -> None:
        self._draft, self._tree, self._executor = draft, tree, executor
        self._made = ManifestFiles()
        self._pending: deque[tuple[bytes, Future[ManifestFile]]] = deque()

    def add(self, file: PlannedFile) -> None:
        """The file is written. Returns at once, unless much is still to be read."""
        newest = self._draft.newest
        if newest is not None:
            entry = self._executor.submit(_made_entry, newest, self._tree, file)
            self._pending.append((file.path, entry))
            self._collect(_PENDING_MAX)

    def all(self) -> ManifestFiles:
        """Waits for them. Raises TargetUnusable."""
        self._collect(0)
        return self._made

    def _collect(self, leave: int) -> None:
        """A pending entry is a kilobyte, a made one a tenth of it: files come by the 100,000."""
        while len(self._pending) > leave:
            path, entry = self._pending.popleft()
            self._made.append(path, entry.result())


def manifest_text(draft: ManifestDraft, made: ManifestFiles) -> Iterator[bytes]:
    if draft.newest is None:
        yield draft.kept
    else:
        yield from manifest_chunks(draft.newest, _entries(draft.newest, made))


def _entries(newest: BackupManifest, made: ManifestFiles) -> Iterator[ManifestEntry]:
    for path, entry in newest.files.items():
        whole = whole_path(path) if is_incremental(path) else path
        yield whole, made.get(whole, entry)


def _part_entry(newest: BackupManifest, path: bytes) -> ManifestFile:
    """Of a file that the newest backup holds in part, or wrote anew for the restore."""
    folder, slash, name = path.rpartition(b"/")
    part = folder + slash + INCREMENTAL_PREFIX + name
    entry = newest.files.get(part) or newest.files.get(path)
    if entry is None:
        raise ManifestInvalid(f"the manifest does not know {part!r}")
    return entry


def _made_entry(newest: BackupManifest, tree: TargetTree, file: PlannedFile) -> ManifestFile:
    entry = _part_entry(newest, file.path)
    if entry.checksum_algorithm is None:
        return ManifestFile(file.size, entry.last_modified, None, b"")
    checksum = file_checksum(entry.checksum_algorithm)
    with tree.reading(file) as descriptor:
        while piece := os.read(descriptor, _PIECE):
            checksum.update(piece)
    return ManifestFile(file.size, entry.last_modified, entry.checksum_algorithm, checksum.digest())
