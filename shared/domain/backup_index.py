"""The index of a backup: where each tar member lies, and where each zstd frame begins.

Offsets of members count in the *archive's* tar stream, which may run over several volumes.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class MemberKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class IndexedMember:
    """One tar member. `path` is relative to its archive's root, in the file system's own bytes."""

    archive: str
    path: bytes
    kind: MemberKind
    size: int
    mode: int
    offset: int
    target: bytes = b""

    @property
    def restored_path(self) -> bytes:
        """Relative to the data directory: a tablespace's members lie below pg_tblspc/<oid>."""
        if self.archive == "pgdata":
            return self.path
        return b"pg_tblspc/%s/%s" % (self.archive.encode(), self.path)


@dataclass(frozen=True, slots=True)
class IndexedVolume:
    """One volume: its first byte's offset in the archive, and the sizes of its frames in order."""

    name: str
    archive: str
    number: int
    start: int
    stored_size: int
    frame_stored: tuple[int, ...]
    frame_plain: tuple[int, ...]

    @property
    def plain_size(self) -> int:
        return sum(self.frame_plain)


@dataclass(frozen=True)
class BackupIndex:
    """Members in stream order; volumes in order of archive and number."""

    label: str
    volumes: tuple[IndexedVolume, ...]
    members: tuple[IndexedMember, ...]

    @cached_property
    def by_path(self) -> dict[bytes, IndexedMember]:
        return {member.restored_path: member for member in self.members}

    @property
    def file_bytes(self) -> int:
        return sum(member.size for member in self.members)
