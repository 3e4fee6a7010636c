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
    """`kept` for a backup that is restored as it was taken; else `newest`, which is corrected in
    place: the entry of a part, below the part's path, becomes that of the whole file.
    """

    kept: bytes
    newest: BackupManifest | None


def draft_manifest(chain: OpenedChain, plan: RestorePlan, executor: Executor) -> ManifestDraft:
    """Raises ManifestInvalid for one that does not describe the newest backup."""
    if len(chain.links) == 1:
        return ManifestDraft(chain.newest.manifest(executor), None)
    newest = read(chain.newest.object_chunks(layout.BACKUP_MANIFEST, executor))
    for file in plan.files:
        if file.composed:
            entry_path(newest.files, file)
    return ManifestDraft(b"", newest)


class MadeEntries:
    """Entries of files that no backup holds like this, computed from what lies in the target."""

    def __init__(self, draft: ManifestDraft, tree: TargetTree, executor: Executor) -> None:
        self._draft, self._tree, self._executor = draft, tree, executor
        self._pending: deque[tuple[bytes, Future[ManifestFile]]] = deque()

    def add(self, file: PlannedFile) -> None:
        """The file is written. Returns at once, unless much is still to be read."""
        newest = self._draft.newest
        if newest is not None:
            path = entry_path(newest.files, file)
            made = self._executor.submit(_made_entry, newest.files[path], self._tree, file)
            self._pending.append((path, made))
            self._collect(newest, _PENDING_MAX)

    def finish(self) -> ManifestDraft:
        """The draft with all of them. Raises TargetUnusable."""
        if self._draft.newest is not None:
            self._collect(self._draft.newest, 0)
        return self._draft

    def _collect(self, newest: BackupManifest, leave: int) -> None:
        """A pending entry is a kilobyte, and files come by the 100,000."""
        while len(self._pending) > leave:
            path, made = self._pending.popleft()
            newest.files.replace(path, made.result())


def manifest_text(draft: ManifestDraft) -> Iterator[bytes]:
    if draft.newest is None:
        yield draft.kept
    else:
        yield from manifest_chunks(draft.newest, _entries(draft.newest))


def _entries(newest: BackupManifest) -> Iterator[ManifestEntry]:
    for path, entry in newest.files.items():
        yield whole_path(path) if is_incremental(path) else path, entry


def entry_path(files: ManifestFiles, file: PlannedFile) -> bytes:
    """Below which the newest manifest has a file: that of a part, for one that it holds in part.

    Raises ManifestInvalid.
    """
    part = part_path(file.path)
    for path in (part, file.path):
        if path in files:
            return path
    raise ManifestInvalid(f"the manifest does not know {part!r}")


def part_path(path: bytes) -> bytes:
    """What PostgreSQL calls the part of a file that an incremental backup holds."""
    folder, slash, name = path.rpartition(b"/")
    return folder + slash + INCREMENTAL_PREFIX + name


def _made_entry(entry: ManifestFile, tree: TargetTree, file: PlannedFile) -> ManifestFile:
    """`entry` is the part's."""
    if entry.checksum_algorithm is None:
        return ManifestFile(file.size, entry.last_modified, None, b"")
    checksum = file_checksum(entry.checksum_algorithm)
    with tree.reading(file) as descriptor:
        while piece := os.read(descriptor, _PIECE):
            checksum.update(piece)
    return ManifestFile(file.size, entry.last_modified, entry.checksum_algorithm, checksum.digest())
