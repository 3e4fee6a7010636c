"""A chain as the tar streams that a full backup in its place would have sent, and their manifest.

Members come in the newest link's order, with its modes and links. Every file that this link holds
whole is checked against its manifest as it goes by: a synthetic full must never make a damaged file
look like a sound one. What is composed gets an entry of its own, of the bytes that went by.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from shared.domain.backup_index import (
    BackupIndex,
    IndexedMember,
    MemberKind,
    whole_path,
)
from shared.domain.file_versions import PlannedFile
from shared.repository.documents import Volume
from worker.commands.backup_stream import ArchiveWriter, Report
from worker.commands.chain_manifest import ManifestDraft, manifest_text, part_path
from worker.commands.chain_reader import FileContent
from worker.commands.file_proof import FileDamaged
from worker.pipeline.tar_writer import tar_header, tar_padding
from worker.postgres.backup_label import BACKUP_LABEL
from worker.postgres.backup_manifest import BackupManifest
from worker.postgres.file_checksum import file_checksum
from worker.postgres.manifest_files import ManifestFile

OpenArchive = Callable[[str], ArchiveWriter]
"""Begins the archive of this name."""


class ComposedManifest:
    """The newest link's manifest, which becomes that of the full backup."""

    def __init__(self, newest: BackupManifest) -> None:
        self._newest = newest
        self._seen = 0

    def watched(self, file: PlannedFile, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks. Behind the last one, a composed file gets its entry; another raises
        FileDamaged when it is not what its entry says.
        """
        path = self._path(file)
        entry = self._newest.files.get(path)
        algorithm = None if entry is None else entry.checksum_algorithm
        checksum = None if algorithm is None else file_checksum(algorithm)
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if checksum is not None:
                checksum.update(chunk)
            yield chunk
        if entry is not None:
            digest = b"" if checksum is None else checksum.digest()
            found = ManifestFile(size, entry.last_modified, algorithm, digest)
            self._close(file, path, found)

    def replace(self, path: bytes, content: bytes) -> None:
        """The file will have this content."""
        entry = self._newest.files[path]
        algorithm, digest = entry.checksum_algorithm, b""
        if algorithm is not None:
            checksum = file_checksum(algorithm)
            checksum.update(content)
            digest = checksum.digest()
        made = ManifestFile(len(content), entry.last_modified, algorithm, digest)
        self._newest.files.replace(path, made)

    def text(self) -> Iterator[bytes]:
        """In pieces. Raises FileDamaged when a file of the newest link's manifest never came."""
        missing = len(self._newest.files) - self._seen
        if missing:
            raise FileDamaged(f"{missing} files of the manifest are not in the backup")
        return manifest_text(ManifestDraft(b"", self._newest))

    def _path(self, file: PlannedFile) -> bytes:
        """Of the entry of the file, or of the part of it that the newest link holds."""
        path = part_path(file.path) if file.composed else file.path
        # WAL is not in the manifest's list of files: it has its own ranges and its own check.
        if path not in self._newest.files and not path.startswith(b"pg_wal/"):
            raise FileDamaged(f"{path!r} is not in the manifest")
        return path

    def _close(self, file: PlannedFile, path: bytes, found: ManifestFile) -> None:
        self._seen += 1
        if found.size != file.size:
            raise FileDamaged(f"{file.path!r} came with {found.size} bytes instead of {file.size}")
        if file.composed:
            self._newest.files.replace(path, found)
        elif found != self._newest.files[path]:
            raise FileDamaged(f"{file.path!r} is not what the manifest describes")


@dataclass(frozen=True, slots=True)
class Composition:
    """What the archives are made of: the newest link's members, the contents of their files in the
    same order, and the backup_label of the result. All members get the time `mtime`.
    """

    newest: BackupIndex
    archives: tuple[str, ...]
    file_bytes: int
    files: Iterator[FileContent]
    label: bytes
    manifest: ComposedManifest
    mtime: int

    def members(self, archive: str) -> Iterator[IndexedMember]:
        members = self.newest.members
        return (
            members[number] for number in range(len(members)) if members.archive(number) == archive
        )

    def content(self, member: IndexedMember) -> tuple[int, Iterator[bytes]]:
        """Size and bytes of the next file, which must be this one."""
        file, chunks = next(self.files)
        if file.path != member.whole_path:
            raise FileDamaged(f"{member.whole_path!r} is not where the index has it")
        watched = self.manifest.watched(file, chunks)
        if file.path != BACKUP_LABEL:
            return file.size, watched
        for _ in watched:
            pass
        self.manifest.replace(file.path, self.label)
        return len(self.label), iter((self.label,))


def write_archives(
    composition: Composition, open_archive: OpenArchive, report: Report
) -> list[Volume]:
    """Every archive in turn. Raises FileDamaged, and what reading and storing raise: volumes that
    were committed until then are litter.
    """
    volumes: list[Volume] = []
    done = 0
    for archive in composition.archives:
        writer = open_archive(archive)
        try:
            for member in composition.members(archive):
                done += _write_member(writer, composition, member)
                report(done, composition.file_bytes)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        volumes += writer.volumes
    return volumes


def _write_member(writer: ArchiveWriter, composition: Composition, member: IndexedMember) -> int:
    """Returns the size of its data."""
    is_file = member.kind is MemberKind.FILE
    size, content = composition.content(member) if is_file else (0, iter(()))
    writer.write(
        tar_header(
            member.path if member.incremental is None else whole_path(member.path),
            member.kind,
            size=size,
            mode=member.mode,
            mtime=composition.mtime,
            link_target=member.target,
        )
    )
    for chunk in content:
        writer.write(chunk)
    writer.write(tar_padding(size))
    return size
