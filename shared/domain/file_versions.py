"""Which bytes of which backup make each file of a chain: the newest block wins.

A chain is a full backup and the incrementals that build on it, oldest first. Its files are those of
its newest link. Of a relation's file, that link may hold changed blocks only; the others are its
parent's, and so on down to the first link that holds the file whole.

pg_combinebackup takes a block below the newest truncation length from wherever it was last stored,
even when a link between says that the file was shorter than that meanwhile. Here every link's
truncation length counts, as it would if the links were combined one by one (docs/decisions/0017).

Of a visibility map only the newest link's blocks count (docs/decisions/0021). PostgreSQL before
17.11 and 18.5 sends a map without blocks whose bits were cleared, and an index-only scan that
believes the parent's bits finds rows that were deleted. A block of zeros says that nothing is
all-visible; the next VACUUM finds out.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from operator import attrgetter

from shared.domain.backup_index import (
    BackupIndex,
    IndexedMember,
    incremental_data_offset,
    is_incremental,
)
from shared.domain.planned_files import PlannedFile, PlannedFiles

__all__ = ["ChainFiles", "Piece", "PlannedFile"]

_ABSENT = -1
# Relation, fork, segment: as relpath.c of PostgreSQL names files.
_VISIBILITY_MAP = re.compile(rb"/[0-9]+_vm(\.[0-9]+)?\Z")


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes at `archive_offset` of link `link`'s archive belong at `file_offset`."""

    link: int
    file: int
    file_offset: int
    archive_offset: int
    length: int


class ChainFiles:
    """The files of a chain. Memory is a few words per file and link, and four bytes per block.

    `problems` says what keeps files from being made; pieces may be asked for when there is none.
    """

    def __init__(
        self, links: Sequence[BackupIndex], block_size: int, only: Callable[[bytes], bool]
    ) -> None:
        self.links = links
        self.problems: list[str] = []
        self._block_size = block_size
        self._tables = [link.members for link in links]
        self._newest = newest = self._tables[-1]
        chosen = (
            number
            for number in range(len(newest))
            if newest.is_file(number) and only(newest.whole_path(number))
        )
        # The number that each file's member has in the newest link.
        self._chosen = array("i", chosen)
        self.files: Sequence[PlannedFile] = PlannedFiles(newest, self._chosen, block_size)
        # By link: the number that each file's member has there.
        self._versions = [array("i", [_ABSENT]) * len(self._chosen) for _ in links[:-1]]
        self._versions.append(self._chosen)
        self._check_names()
        self._trace()
        self._uses = [self._in_stream_order(link) for link in range(len(links))]

    def version(self, link: int, file: int) -> IndexedMember | None:
        """The member of `link` that the file is made of, wholly or in part."""
        number = self._versions[link][file]
        return None if number == _ABSENT else self._tables[link][number]

    def archive(self, file: int) -> str:
        """The archive that holds the file, in every link."""
        return self._newest.archive(self._chosen[file])

    def base(self, file: int) -> int:
        """The number of the link that holds the file whole: the oldest one that it is made of."""
        return next(
            link for link, versions in enumerate(self._versions) if versions[file] != _ABSENT
        )

    def pieces_of_archive(self, link: int, archive: str) -> Iterator[Piece]:
        """What is needed of one archive of one link, by ascending archive offset."""
        table, versions = self._tables[link], self._versions[link]
        for file in self._uses[link]:
            if table.archive(versions[file]) == archive:
                yield from self._pieces(link, file)

    def pieces_of_file(self, file: int) -> Iterator[Piece]:
        """Everything that one file is made of, by ascending file offset."""
        holding = (
            link
            for link, versions in enumerate(self._versions)
            if versions[file] != _ABSENT and self._holds_content(link, versions[file])
        )
        return merge(*(self._pieces(link, file) for link in holding), key=attrgetter("file_offset"))

    def _check_names(self) -> None:
        for number in self._chosen:
            path = self._newest.whole_path(number)
            if is_incremental(path) and not self._newest.is_part(number):
                self.problems.append(f"{path!r} is named like a part of a file, but is none")

    def _trace(self) -> None:
        """Follow every file that is not whole to older links."""
        newest = self._newest
        open_files = {
            newest.whole_path(number): file
            for file, number in enumerate(self._chosen)
            if newest.is_part(number)
        }
        for link in range(len(self.links) - 2, -1, -1):
            open_files = self._trace_to(link, open_files)
        for path in open_files:
            self.problems.append(f"no backup of the chain holds {path!r} whole")

    def _trace_to(self, link: int, open_files: dict[bytes, int]) -> dict[bytes, int]:
        """Returns those that are still not whole."""
        table, versions = self._tables[link], self._versions[link]
        still_open: dict[bytes, int] = {}
        for number in range(len(table)):
            path = table.whole_path(number)
            file = open_files.get(path)
            if file is None or not table.is_file(number):
                continue
            versions[file] = number
            if table.is_part(number):
                still_open[path] = file
        for path, file in open_files.items():
            if versions[file] == _ABSENT:
                self.problems.append(
                    f"{path!r} builds on backup {self.links[link].label}, which does not hold it"
                )
        return still_open

    def _in_stream_order(self, link: int) -> "array[int]":
        """The files that this link holds anything of."""
        versions = self._versions[link]
        used = (
            file
            for file, number in enumerate(versions)
            if number != _ABSENT and self._holds_content(link, number)
        )
        return array("i", sorted(used, key=versions.__getitem__))

    def _holds_content(self, link: int, number: int) -> bool:
        table = self._tables[link]
        return table.block_count(number) > 0 if table.is_part(number) else table.size(number) > 0

    def _pieces(self, link: int, file: int) -> Iterator[Piece]:
        table, number, size = self._tables[link], self._versions[link][file], self._block_size
        data = table.offset(number)
        if not self._newest.is_part(self._chosen[file]):
            yield Piece(link, file, 0, data, table.size(number))
            return
        if link < len(self.links) - 1 and _VISIBILITY_MAP.search(self.files[file].path):
            return  # may be outdated: zeros instead
        covered, limit = self._newer(link, file)
        if not table.is_part(number):
            for begin, end in _clear_runs(covered, min(limit, table.size(number) // size)):
                yield Piece(link, file, begin * size, data + begin * size, (end - begin) * size)
            return
        data += incremental_data_offset(table.block_count(number), size)
        for begin, at, count in _held_runs(table.blocks(number), covered, limit):
            yield Piece(link, file, begin * size, data + at * size, count * size)

    def _newer(self, link: int, file: int) -> tuple[bytearray, int]:
        """Which blocks newer links hold, one byte each, and how many may come from this one."""
        length = limit = self._newest.whole_length(self._chosen[file])
        covered = bytearray(length)
        for newer in range(len(self.links) - 1, link, -1):
            table, number = self._tables[newer], self._versions[newer][file]
            if table.block_count(number):
                blocks = table.blocks(number)
                for block in blocks[: bisect_left(blocks, limit)]:
                    covered[block] = 1
            limit = min(limit, table.truncation_length(number))
        return covered, limit


def _clear_runs(covered: bytearray, limit: int) -> Iterator[tuple[int, int]]:
    """Runs [begin, end) below `limit` that nothing covers."""
    begin = covered.find(0, 0, limit)
    while begin != -1:
        end = covered.find(1, begin, limit)
        if end == -1:
            yield begin, limit
            return
        yield begin, end
        begin = covered.find(0, end, limit)


def _held_runs(
    blocks: Sequence[int], covered: bytearray, limit: int
) -> Iterator[tuple[int, int, int]]:
    """Runs of consecutive blocks that count: the first one, where it stands, how many."""
    begin = at = count = 0
    for position, block in enumerate(blocks):
        if block >= limit:
            break
        if count and (covered[block] or block != begin + count):
            yield begin, at, count
            count = 0
        if not covered[block]:
            if not count:
                begin, at = block, position
            count += 1
    if count:
        yield begin, at, count
