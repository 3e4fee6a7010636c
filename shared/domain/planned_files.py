"""The files that a restore makes, by number: a view of the newest index, not a copy."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from shared.domain.backup_index import MemberTable


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """`path` is relative to the data directory.

    A `composed` file comes of several links: what no extent fills of its `size` is zeros.
    """

    path: bytes
    size: int
    mode: int
    composed: bool = False


class PlannedFiles(Sequence[PlannedFile]):
    """Each is made anew when it is asked for: kept, 100,000 of them would be 20 MiB."""

    def __init__(self, table: MemberTable, numbers: "array[int]", block_size: int) -> None:
        """`numbers` are those of the files' members in the table."""
        self._table = table
        self._numbers = numbers
        self._block_size = block_size

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> PlannedFile: ...
    @overload
    def __getitem__(self, at: slice) -> "PlannedFiles": ...
    def __getitem__(self, at: int | slice) -> "PlannedFile | PlannedFiles":
        if isinstance(at, slice):
            return PlannedFiles(self._table, self._numbers[at], self._block_size)
        return self._planned(self._numbers[at])

    def __iter__(self) -> Iterator[PlannedFile]:
        return map(self._planned, self._numbers)

    def _planned(self, number: int) -> PlannedFile:
        table = self._table
        composed = table.is_part(number)
        size = table.whole_length(number) * self._block_size if composed else table.size(number)
        return PlannedFile(table.whole_path(number), size, table.mode(number), composed)
