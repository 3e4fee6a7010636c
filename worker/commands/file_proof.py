"""Checksums of a backup's files as their bytes go by, against PostgreSQL's manifest."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.domain.backup_index import IndexedMember, MemberKind
from shared.errors import Corrupt, PgkeepError
from worker.pipeline.tar_walk import TarMember, TarWalker
from worker.postgres.backup_manifest import (
    BackupManifest,
    FileChecksum,
    ManifestFile,
    file_checksum,
)

Note = Callable[[str, PgkeepError], None]
"""Takes the name of what is damaged, and how."""


class FileDamaged(Corrupt):
    """A file whose bytes are not those that PostgreSQL's manifest describes."""

    code = "file-damaged"


@dataclass(slots=True)
class _OpenFile:
    """A file whose bytes are going by. `entry` None: the manifest does not know it."""

    member: IndexedMember
    entry: ManifestFile | None
    checksum: FileChecksum | None

    @property
    def end(self) -> int:
        return self.member.offset + self.member.size

    def problem(self) -> str | None:
        path = self.member.restored_path
        if self.entry is None:
            # WAL is not in the manifest's list of files: it has its own ranges and its own check.
            return None if path.startswith(b"pg_wal/") else f"{path!r} is not in the manifest"
        if self.entry.size != self.member.size:
            return f"{path!r} has {self.member.size} bytes instead of {self.entry.size}"
        if self.checksum is not None and self.checksum.digest() != self.entry.checksum:
            return f"{path!r} does not match its checksum"
        return None


class FileProof:
    """One pass over all archives of one backup."""

    def __init__(self, manifest: BackupManifest, note: Note) -> None:
        self._missing = dict(manifest.files)
        self._note = note
        self.files = 0

    def finish(self) -> None:
        """Note every file of the manifest that never came."""
        for path in self._missing:
            self._note(shown(path), FileDamaged(f"{path!r} is not in the backup"))

    def expect(self, member: IndexedMember) -> _OpenFile:
        entry = self._missing.pop(member.restored_path, None)
        algorithm = None if entry is None else entry.checksum_algorithm
        checksum = None if algorithm is None else file_checksum(algorithm)
        return _OpenFile(member, entry, checksum)

    def close(self, file: _OpenFile) -> None:
        self.files += 1
        problem = file.problem()
        if problem:
            self._note(shown(file.member.restored_path), FileDamaged(problem))


class ArchiveProof:
    """One archive's tar stream, fed in order in pieces of any size."""

    def __init__(self, archive: str, files: FileProof) -> None:
        self._archive = archive
        self._files = files
        self._walker = TarWalker()
        self._offset = 0
        self._open: list[_OpenFile] = []

    def feed(self, piece: bytes) -> None:
        """Raises TarMalformed, TarMemberRefused."""
        for member in self._walker.feed(piece):
            if member.kind is MemberKind.FILE:
                self._open.append(self._files.expect(_indexed(self._archive, member)))
        end = self._offset + len(piece)
        for file in self._open:
            low, high = max(self._offset, file.member.offset), min(end, file.end)
            if file.checksum is not None and low < high:
                file.checksum.update(piece[low - self._offset : high - self._offset])
            if file.end <= end:
                self._files.close(file)
        self._open = [file for file in self._open if file.end > end]
        self._offset = end

    def finish(self) -> None:
        """Raises TarMalformed when the stream stopped inside a member."""
        self._walker.finish()


def shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _indexed(archive: str, member: TarMember) -> IndexedMember:
    return IndexedMember(
        archive=archive,
        path=member.path,
        kind=member.kind,
        size=member.size,
        mode=member.mode,
        offset=member.data_offset,
        target=member.link_target,
    )
