"""The files of a backup_manifest by the hundred thousand: columns instead of objects."""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from shared.errors import PgkeepError
from worker.postgres.file_checksum import ChecksumAlgorithm

_ALGORITHMS: Final = (None, *ChecksumAlgorithm)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """`checksum` is empty when the backup was taken without."""

    size: int
    last_modified: str
    checksum_algorithm: ChecksumAlgorithm | None
    checksum: bytes


class ManifestFiles(Mapping[bytes, ManifestFile]):
    """By path, in the order of the manifest; entries are made when they are asked for.

    A file's number is its place in that order, for what is to be kept beside its entry.
    """

    def __init__(self, files: Iterable[tuple[bytes, ManifestFile]] = ()) -> None:
        self._numbers: dict[bytes, int] = {}
        self._sizes = array("q")
        self._algorithms = bytearray()
        self._checksums = bytearray()
        self._checksum_ends = array("q", [0])
        self._modified = array("I")
        # Texts by number, and numbers by text: files by the thousand share one second.
        self._instants: list[str] = []
        self._instant_numbers: dict[str, int] = {}
        for path, file in files:
            self.append(path, file)

    def append(self, path: bytes, file: ManifestFile) -> None:
        """`path` must be new."""
        self._numbers[path] = len(self._numbers)
        self._sizes.append(file.size)
        self._algorithms.append(_ALGORITHMS.index(file.checksum_algorithm))
        self._checksums += file.checksum
        self._checksum_ends.append(len(self._checksums))
        self._modified.append(self._instant_number(file.last_modified))

    def replace(self, path: bytes, file: ManifestFile) -> None:
        """Another size and content of a file that is there, checked by the same algorithm."""
        number = self._numbers[path]
        begin, end = self._checksum_ends[number : number + 2]
        if len(file.checksum) != end - begin:
            raise PgkeepError(f"{path!r} had a checksum of {end - begin} bytes")
        self._sizes[number] = file.size
        self._checksums[begin:end] = file.checksum

    def number(self, path: bytes) -> int | None:
        """None for a file that the manifest does not know."""
        return self._numbers.get(path)

    def size(self, path: bytes) -> int | None:
        """Without making an entry; None for a file that the manifest does not know."""
        number = self._numbers.get(path)
        return None if number is None else self._sizes[number]

    def __getitem__(self, path: bytes) -> ManifestFile:
        number = self._numbers[path]
        begin, end = self._checksum_ends[number : number + 2]
        return ManifestFile(
            size=self._sizes[number],
            last_modified=self._instants[self._modified[number]],
            checksum_algorithm=_ALGORITHMS[self._algorithms[number]],
            checksum=bytes(self._checksums[begin:end]),
        )

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, path: object) -> bool:
        return path in self._numbers

    def _instant_number(self, text: str) -> int:
        number = self._instant_numbers.setdefault(text, len(self._instants))
        if number == len(self._instants):
            self._instants.append(text)
        return number
