"""A backup's index against its tar streams: restores are planned by the index and by nothing else.

Every member and every frame must lie where the index says; of a file that was sent in part, the
index must tell the very block numbers that its header holds.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable
from dataclasses import replace

from shared.domain.backup_index import (
    BackupIndex,
    IncrementalBlocks,
    IndexedMember,
    IndexedVolume,
    is_incremental,
)
from shared.errors import Corrupt, PgkeepError
from shared.repository import layout
from shared.repository.documents import BackupDocument, Volume
from worker.postgres.incremental_file import MAGIC

Note = Callable[[str, PgkeepError], None]
"""Takes the name of what is damaged, and how."""

_HEAD = struct.Struct("<III")  # magic, number of blocks, truncation length


class IndexDiffers(Corrupt):
    """An index that says of its backup what is not so: a restore would take the wrong bytes."""

    code = "index-differs"
    hint = "The backup cannot be restored by its index; take a new one and report the defect."


class FileInPart(Corrupt):
    """A part of a file where a whole one belongs: no older backup completes it."""

    code = "file-in-part"
    hint = "PostgreSQL never sends this; take a new backup and report the defect."


class IndexProof:
    """The members of one archive as they go by, against the index's lines in the same order."""

    def __init__(self, index: BackupIndex, archive: str, block_size: int, note: Note) -> None:
        table = index.members
        numbers = (number for number in range(len(table)) if table.archive(number) == archive)
        self._lines = (table[number] for number in numbers)
        self._archive = archive
        self._block_size = block_size
        self._note = note
        self._in_step = True

    def match(self, member: IndexedMember) -> bytes:
        """What a file that was sent in part must begin with; nothing for every other member."""
        line = next(self._lines, None) if self._in_step else None
        if line is None or replace(line, incremental=None) != member:
            self._lose_step(f"{member.restored_path!r} is not where the index has it")
            return b""
        return b"" if line.incremental is None else header_of(line.incremental, self._block_size)

    def finish(self) -> None:
        left = next(self._lines, None)
        if left is not None:
            self._lose_step(f"{left.restored_path!r} is in the index only")

    def _lose_step(self, fact: str) -> None:
        """Once: behind the first difference every member looks wrong."""
        if self._in_step:
            self._note(layout.INDEX, IndexDiffers(f"archive {self._archive}: {fact}"))
        self._in_step = False


def header_of(held: IncrementalBlocks, block_size: int) -> bytes:
    """How an INCREMENTAL file with these blocks begins, up to its first block."""
    numbers = array("I", held.blocks)
    if sys.byteorder == "big":
        numbers.byteswap()
    head = _HEAD.pack(MAGIC, len(numbers), held.truncation_length) + numbers.tobytes()
    return head.ljust(held.data_offset(block_size), b"\0")


def check_parts(index: BackupIndex, document: BackupDocument, note: Note) -> None:
    """Files in part are named like it, and only incremental backups hold any."""
    members = index.members
    for number in range(len(members)):
        path = members.restored_path(number)
        named = members.is_file(number) and is_incremental(path)
        if named and document.parent is None:
            note(shown(path), FileInPart(f"{path!r} is a part of a file, in a full backup"))
        elif named and not members.is_part(number):
            note(shown(path), IndexDiffers(f"the index does not tell which blocks {path!r} holds"))
        elif members.is_part(number) and not named:
            note(shown(path), IndexDiffers(f"the index takes {path!r} for a part of a file"))


def check_volume(index: BackupIndex, volume: Volume, frames: Iterable[tuple[int, int]]) -> None:
    """`frames` are (stored, plaintext) sizes as the volume's own table has them.

    Raises IndexDiffers.
    """
    told = [item for item in index.volumes if item.name == volume.name]
    if [_described(item) for item in told] != [(volume.archive, volume.number, volume.stored_size)]:
        raise IndexDiffers(f"the index describes another volume {volume.name}")
    if list(zip(told[0].frame_stored, told[0].frame_plain, strict=True)) != list(frames):
        raise IndexDiffers(f"the index cuts {volume.name} into other frames")


def shown(path: bytes) -> str:
    """How a finding names a file."""
    return path.decode("utf-8", "backslashreplace")


def _described(volume: IndexedVolume) -> tuple[str, int, int]:
    return volume.archive, volume.number, volume.stored_size
