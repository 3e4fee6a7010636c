"""A backup's files as their bytes go by, against PostgreSQL's manifest and our index."""

from dataclasses import dataclass, field

from shared.domain.backup_index import BackupIndex, IndexedMember, MemberKind
from shared.errors import Corrupt
from worker.commands.index_proof import IndexDiffers, IndexProof, Note, shown
from worker.pipeline.tar_walk import TarMember, TarWalker
from worker.postgres.backup_label import BACKUP_LABEL, SIZE_LIMIT
from worker.postgres.backup_manifest import (
    BackupManifest,
    FileChecksum,
    ManifestFile,
    file_checksum,
)


class FileDamaged(Corrupt):
    """A file whose bytes are not those that PostgreSQL's manifest describes."""

    code = "file-damaged"


@dataclass(slots=True)
class _OpenFile:
    """A file whose bytes are going by.

    `entry` None: the manifest does not know it. `header` is what the file must begin with, and
    `kept` takes its bytes.
    """

    member: IndexedMember
    entry: ManifestFile | None
    checksum: FileChecksum | None
    header: bytes
    kept: bytearray | None
    begins_right: bool = True

    @property
    def end(self) -> int:
        return self.member.offset + self.member.size

    def take(self, data: bytes, at: int) -> None:
        """`data` stands `at` bytes behind the file's begin."""
        if self.checksum is not None:
            self.checksum.update(data)
        if self.kept is not None:
            self.kept += data[: SIZE_LIMIT + 1 - len(self.kept)]  # more is refused anyway
        expected = self.header[at : at + len(data)]
        if not data.startswith(expected):
            self.begins_right = False

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


@dataclass(slots=True)
class FileProof:
    """One pass over all archives of one backup; `backup_label` is known when its bytes went by."""

    manifest: BackupManifest
    note: Note
    files: int = 0
    backup_label: bytes | None = None
    _missing: set[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._missing = set(self.manifest.files)

    def finish(self) -> None:
        """Note every file of the manifest that never came."""
        for path in sorted(self._missing):
            self.note(shown(path), FileDamaged(f"{path!r} is not in the backup"))

    def expect(self, member: IndexedMember, header: bytes) -> _OpenFile:
        path = member.restored_path
        self._missing.discard(path)
        entry = self.manifest.files.get(path)
        algorithm = None if entry is None else entry.checksum_algorithm
        checksum = None if algorithm is None else file_checksum(algorithm)
        kept = bytearray() if path == BACKUP_LABEL else None
        return _OpenFile(member, entry, checksum, header, kept)

    def close(self, file: _OpenFile) -> None:
        self.files += 1
        path = file.member.restored_path
        problem = file.problem()
        if problem:
            self.note(shown(path), FileDamaged(problem))
        if not file.begins_right or file.member.size < len(file.header):
            self.note(shown(path), IndexDiffers(f"{path!r} holds other blocks than the index says"))
        if file.kept is not None:
            self.backup_label = bytes(file.kept)


class ArchiveProof:
    """One archive's tar stream, fed in order in pieces of any size."""

    def __init__(self, archive: str, files: FileProof, index: BackupIndex, block_size: int) -> None:
        self._archive = archive
        self._files = files
        self._lines = IndexProof(index, archive, block_size, files.note)
        self._walker = TarWalker()
        self._offset = 0
        self._open: list[_OpenFile] = []

    def feed(self, piece: bytes) -> None:
        """Raises TarMalformed, TarMemberRefused."""
        for found in self._walker.feed(piece):
            member = _indexed(self._archive, found)
            header = self._lines.match(member)
            if member.kind is MemberKind.FILE:
                self._open.append(self._files.expect(member, header))
        end = self._offset + len(piece)
        for file in self._open:
            low, high = max(self._offset, file.member.offset), min(end, file.end)
            if low < high:
                data = piece[low - self._offset : high - self._offset]
                file.take(data, low - file.member.offset)
            if file.end <= end:
                self._files.close(file)
        self._open = [file for file in self._open if file.end > end]
        self._offset = end

    def finish(self) -> None:
        """Raises TarMalformed when the stream stopped inside a member."""
        self._walker.finish()
        self._lines.finish()


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
