"""The index of a backup: where each tar member lies, and where each zstd frame begins.

Offsets of members count in the *archive's* tar stream, which may run over several volumes.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, overload

# What PostgreSQL puts before the name of a file of which it sends changed blocks only.
INCREMENTAL_PREFIX: Final = b"INCREMENTAL."
# The file begins with its magic, the number of blocks and the truncation length, four bytes each
# and four for each block's number; padded to a whole block when any block follows
# (basebackup_incremental.c, GetIncrementalHeaderSize).
_HEADER_WORDS: Final = 3
# Where relations lie (pg_combinebackup.c, process_directory_recursively).
_RELATION_FOLDERS: Final = (b"base/", b"pg_tblspc/")
_WORD: Final = 4


class MemberKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class IncrementalBlocks:
    """Which blocks an INCREMENTAL file holds, as array 'I', ascending, counted within the file.

    Blocks below `truncation_length` that it does not hold are its parent's; at or behind it, a
    block that it does not hold does not exist, or is all zeros.
    """

    truncation_length: int
    blocks: "array[int]"

    @property
    def length(self) -> int:
        """Blocks of the whole file that comes of it."""
        return max(self.truncation_length, self.blocks[-1] + 1 if self.blocks else 0)

    def data_offset(self, block_size: int) -> int:
        """Where in the INCREMENTAL file the first block begins, in bytes."""
        return incremental_data_offset(len(self.blocks), block_size)

    def file_size(self, block_size: int) -> int:
        """Bytes of the INCREMENTAL file itself."""
        return self.data_offset(block_size) + len(self.blocks) * block_size


@dataclass(frozen=True, slots=True)
class IndexedMember:
    """One tar member. `path` is relative to its archive's root, in the file system's own bytes.

    `incremental` is what stands in the header of an INCREMENTAL file, and None for every other.
    """

    archive: str
    path: bytes
    kind: MemberKind
    size: int
    mode: int
    offset: int
    target: bytes = b""
    incremental: IncrementalBlocks | None = None

    @property
    def restored_path(self) -> bytes:
        """Relative to the data directory: a tablespace's members lie below pg_tblspc/<oid>."""
        return restored_path(self.archive, self.path)

    @property
    def whole_path(self) -> bytes:
        """Of the file that the member is, or is a part of: `restored_path` without INCREMENTAL."""
        path = self.restored_path
        return path if self.incremental is None else whole_path(path)


class MemberTable(Sequence[IndexedMember]):
    """Members by the hundred thousand: columns instead of objects, a tenth of the memory."""

    def __init__(self, members: Iterable[IndexedMember] = ()) -> None:
        self._paths: list[bytes] = []
        self._archives: list[str] = []
        self._archive_numbers: dict[str, int] = {}
        self._archive = array("I")
        self._kind = bytearray()
        self._size, self._offset = array("q"), array("q")
        self._mode = array("H")
        self._targets: dict[int, bytes] = {}
        # Of each member the number of blocks before its own; its truncation length or -1.
        self._blocks, self._first_block, self._truncation = array("I"), array("q"), array("q")
        for member in members:
            self.append(member)

    def append(self, member: IndexedMember, known: bytes | None = None) -> None:
        """`known` is kept instead of a path that equals it, so that tables share their paths."""
        if member.target:
            self._targets[len(self._paths)] = member.target
        self._paths.append(known if known == member.path else member.path)
        self._archive.append(self._archive_number(member.archive))
        self._kind.append(_KINDS.index(member.kind))
        self._size.append(member.size)
        self._offset.append(member.offset)
        self._mode.append(member.mode)
        self._first_block.append(len(self._blocks))
        held = member.incremental
        self._truncation.append(-1 if held is None else held.truncation_length)
        if held is not None:
            self._blocks.extend(held.blocks)

    # Of one member by its number, without making an object of it.

    def archive(self, number: int) -> str:
        return self._archives[self._archive[number]]

    def size(self, number: int) -> int:
        return self._size[number]

    def offset(self, number: int) -> int:
        return self._offset[number]

    def mode(self, number: int) -> int:
        return self._mode[number]

    def path(self, number: int) -> bytes:
        """As stored, relative to its archive's root."""
        return self._paths[number]

    def is_file(self, number: int) -> bool:
        return _KINDS[self._kind[number]] is MemberKind.FILE

    def restored_path(self, number: int) -> bytes:
        return restored_path(self.archive(number), self._paths[number])

    def whole_path(self, number: int) -> bytes:
        path = self.restored_path(number)
        return whole_path(path) if self.is_part(number) else path

    def is_part(self, number: int) -> bool:
        """Whether it is an INCREMENTAL file."""
        return self._truncation[number] >= 0

    def truncation_length(self, number: int) -> int:
        """Of an INCREMENTAL file; less than 0 for every other."""
        return self._truncation[number]

    def whole_length(self, number: int) -> int:
        """Blocks of the whole file that an INCREMENTAL file is a part of."""
        count = self.block_count(number)
        last = self._blocks[self._first_block[number] + count - 1] if count else -1
        return max(self._truncation[number], last + 1)

    def block_count(self, number: int) -> int:
        following = number + 1
        end = self._first_block[following] if following < len(self) else len(self._blocks)
        return end - self._first_block[number]

    def blocks(self, number: int) -> "array[int]":
        first = self._first_block[number]
        return self._blocks[first : first + self.block_count(number)]

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, at: int) -> IndexedMember: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[IndexedMember]: ...
    def __getitem__(self, at: int | slice) -> IndexedMember | Sequence[IndexedMember]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        number = range(len(self))[at]
        held = None
        if self.is_part(number):
            held = IncrementalBlocks(self._truncation[number], self.blocks(number))
        return IndexedMember(
            archive=self.archive(number),
            path=self._paths[number],
            kind=_KINDS[self._kind[number]],
            size=self._size[number],
            mode=self._mode[number],
            offset=self._offset[number],
            target=self._targets.get(number, b""),
            incremental=held,
        )

    def __iter__(self) -> Iterator[IndexedMember]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # grows, like a list

    def _archive_number(self, archive: str) -> int:
        number = self._archive_numbers.setdefault(archive, len(self._archives))
        if number == len(self._archives):
            self._archives.append(archive)
        return number


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
    members: MemberTable

    def member(self, path: bytes) -> IndexedMember | None:
        """The first one with this restored path."""
        for number in range(len(self.members)):
            if self.members.restored_path(number) == path:
                return self.members[number]
        return None


def incremental_data_offset(blocks: int, block_size: int) -> int:
    """Where the blocks of an INCREMENTAL file with so many of them begin."""
    size = (_HEADER_WORDS + blocks) * _WORD
    return size + (-size % block_size if blocks else 0)


def restored_path(archive: str, path: bytes) -> bytes:
    return path if archive == "pgdata" else b"pg_tblspc/%s/%s" % (archive.encode(), path)


def is_incremental(path: bytes) -> bool:
    """Whether PostgreSQL would take a file of this restored path for one that it sent in part."""
    folder, _, name = path.rpartition(b"/")
    holds_relations = folder == b"global" or folder.startswith(_RELATION_FOLDERS)
    return holds_relations and name.startswith(INCREMENTAL_PREFIX)


def whole_path(path: bytes) -> bytes:
    """`base/5/INCREMENTAL.1259` names a part of `base/5/1259`."""
    folder, slash, name = path.rpartition(b"/")
    return folder + slash + name.removeprefix(INCREMENTAL_PREFIX)


_KINDS: Final = tuple(MemberKind)
