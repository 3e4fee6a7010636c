"""Where the bytes of a chain's archives lie: volume, frame, and what of the frame's plaintext."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from shared.domain.backup_index import BackupIndex, IndexedVolume


class Frame(NamedTuple):
    """One frame of a chain: the number of the link, the archive, and the frame's number there."""

    link: int
    archive: str
    number: int


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Where a frame lies in a volume of backup `label`; the offset is in the zstd stream."""

    label: str
    volume: str
    offset: int
    stored_length: int
    plain_length: int


class ArchiveFrames:
    """The frames of one archive by number, across its volumes; 32 bytes of memory for each."""

    def __init__(self, label: str, volumes: Iterable[IndexedVolume]) -> None:
        self._label = label
        self._names: list[str] = []
        self._volumes = array("I")
        # Of each frame where it begins, in the archive and in its volume's zstd stream.
        self._plain, self._stored = array("q", [0]), array("q")
        self._stored_lengths = array("I")
        for volume in sorted(volumes, key=lambda item: item.number):
            self._append(volume)

    def at(self, offset: int) -> int:
        """The number of the frame that holds this byte of the archive."""
        return bisect_right(self._plain, offset) - 1

    def span(self, number: int) -> tuple[int, int]:
        """[begin, end) of its plaintext in the archive."""
        return self._plain[number], self._plain[number + 1]

    def place(self, number: int) -> FramePlace:
        begin, end = self.span(number)
        return FramePlace(
            label=self._label,
            volume=self._names[self._volumes[number]],
            offset=self._stored[number],
            stored_length=self._stored_lengths[number],
            plain_length=end - begin,
        )

    def _append(self, volume: IndexedVolume) -> None:
        offset = 0
        for stored, plain in zip(volume.frame_stored, volume.frame_plain, strict=True):
            self._volumes.append(len(self._names))
            self._plain.append(self._plain[-1] + plain)
            self._stored.append(offset)
            self._stored_lengths.append(stored)
            offset += stored
        self._names.append(volume.name)


class ChainFrames:
    """All frames of a chain; numbers of links as in the chain."""

    def __init__(self, chain: Iterable[BackupIndex]) -> None:
        self._archives: dict[tuple[int, str], ArchiveFrames] = {}
        for link, index in enumerate(chain):
            for archive in dict.fromkeys(volume.archive for volume in index.volumes):
                own = (volume for volume in index.volumes if volume.archive == archive)
                self._archives[link, archive] = ArchiveFrames(index.label, own)

    def of(self, link: int, archive: str) -> ArchiveFrames:
        return self._archives[link, archive]

    def place(self, frame: Frame) -> FramePlace:
        return self.of(frame.link, frame.archive).place(frame.number)
