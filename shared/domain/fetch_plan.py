"""From pieces of files to ranged reads: which frames to fetch, and what each of them fills."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.domain.backup_index import IndexedVolume
from shared.domain.file_versions import ChainFiles, Piece

# A fetch is one ranged GET of whole segments: big enough that the segments at both ends, of which a
# part is not wanted, hardly count; small enough to keep several in memory.
FETCH_STORED: Final = 8 << 20
FETCH_PLAIN: Final = 32 << 20
# Stored bytes that nobody needs are read all the same when that spares a request: one segment's.
SKIP_STORED: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes at `plain_offset` of a frame's plaintext go to `file_offset` of a file.

    `file` is an index into the plan's `files`.
    """

    file: int
    file_offset: int
    plain_offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PlannedFrame:
    """One zstd frame with what its plaintext fills; without extents nobody needs it opened."""

    stored_length: int
    plain_length: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Consecutive frames of one volume of backup `label`.

    `stored_offset` counts in the volume's zstd stream. The first and the last frame are needed.
    """

    label: str
    volume: str
    stored_offset: int
    stored_length: int
    frames: tuple[PlannedFrame, ...]


@dataclass(frozen=True, slots=True)
class Fetches:
    """Every fetch of a plan, made anew by each iteration: newest link first, volume by volume.

    So a file is complete when the link that holds it whole was read past it.
    """

    content: ChainFiles

    def __iter__(self) -> Iterator[Fetch]:
        for link, index in reversed([*enumerate(self.content.links)]):
            archives = dict.fromkeys(volume.archive for volume in index.volumes)
            for archive in archives:
                volumes = [volume for volume in index.volumes if volume.archive == archive]
                pieces = _PieceStream(self.content.pieces_of_archive(link, archive))
                for volume in sorted(volumes, key=lambda item: item.number):
                    yield from _fetches(index.label, volume, pieces)


class _PieceStream:
    """Pieces in ascending archive order, taken apart where frames end."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._head = next(pieces, None)

    def extents(self, begin: int, end: int) -> tuple[Extent, ...]:
        """What of the pieces lies in the archive's bytes [begin, end). Ask in ascending order."""
        found: list[Extent] = []
        while (head := self._head) is not None and head.archive_offset < end:
            low = max(begin, head.archive_offset)
            high = min(end, head.archive_offset + head.length)
            if low < high:
                at = head.file_offset + low - head.archive_offset
                found.append(Extent(head.file, at, low - begin, high - low))
            if head.archive_offset + head.length > end:
                break
            self._head = next(self._pieces, None)
        return tuple(found)


class _Run:
    """Frames of one volume that one request fetches."""

    def __init__(self, label: str, volume: str) -> None:
        self._label, self._volume = label, volume
        self._offset = 0
        self._frames: list[PlannedFrame] = []
        # Behind the last needed frame: taken along if another needed one follows soon.
        self._skipped: list[PlannedFrame] = []

    def takes(self, frame: PlannedFrame) -> bool:
        """Whether a needed frame can still come into this fetch."""
        skipped = sum(item.stored_length for item in self._skipped)
        together = (*self._frames, *self._skipped, frame)
        return not self._frames or (
            skipped <= SKIP_STORED
            and sum(item.stored_length for item in together) <= FETCH_STORED
            and sum(item.plain_length for item in together) <= FETCH_PLAIN
        )

    def add(self, offset: int, frame: PlannedFrame) -> None:
        if not self._frames:
            self._offset = offset
        self._frames += [*self._skipped, frame]
        self._skipped.clear()

    def skip(self, frame: PlannedFrame) -> None:
        if self._frames:
            self._skipped.append(frame)

    def close(self) -> Iterator[Fetch]:
        """The fetch, if there is anything to fetch; begins anew."""
        if self._frames:
            stored = sum(frame.stored_length for frame in self._frames)
            yield Fetch(self._label, self._volume, self._offset, stored, tuple(self._frames))
        self._frames, self._skipped = [], []


def _fetches(label: str, volume: IndexedVolume, pieces: _PieceStream) -> Iterator[Fetch]:
    run = _Run(label, volume.name)
    offset, begin = 0, volume.start
    for stored, plain in zip(volume.frame_stored, volume.frame_plain, strict=True):
        frame = PlannedFrame(stored, plain, pieces.extents(begin, begin + plain))
        if not frame.extents:
            run.skip(frame)
        else:
            if not run.takes(frame):
                yield from run.close()
            run.add(offset, frame)
        offset += stored
        begin += plain
    yield from run.close()
