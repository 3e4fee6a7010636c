"""Whole files out of a chain, one after the other, as if it were one full backup.

The pieces of a file lie in several links, and in each of them scattered over its frames. What is
read is planned ahead: the next frames are fetched while the bytes of others are taken, and of each
link the frame that was used last stays, for small files share frames, and the blocks of one file
share those of an incremental. Files come in the order of the newest link's stream. A server sends
its directories in much the same order each time, so that every link is read from its beginning to
its end, and each frame once.

Memory: one frame of each link and FRAMES_AHEAD more; it does not grow with the data.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

from shared.domain.file_versions import ChainFiles, PlannedFile
from shared.domain.restore_plan import RestorePlan
from worker.commands.chain_frames import ChainFrames, Frame, FramePlace
from worker.commands.fetched_files import VolumeOpener
from worker.pipeline.in_order import map_in_order
from worker.pipeline.seekable_zstd import decompress_frame

# Each is a ranged read of its own: of its segments, at both ends, a part may be read in vain.
FRAMES_AHEAD: Final = 2
_ZEROS: Final = bytes(1 << 20)

FileContent = tuple[PlannedFile, Iterator[bytes]]


def read_files(
    volumes: VolumeOpener, plan: RestorePlan, executor: Executor
) -> Iterator[FileContent]:
    """Every file of the plan, in the plan's order, each with its content in pieces of at most one
    frame. What of a content was not taken is passed over when the next file is asked for.

    `executor` fetches and decompresses; without it nothing is read. Raises SegmentCorrupt,
    FrameCorrupt, and what the store raises.
    """
    content = plan.content
    pieces = _read(volumes, content, executor)
    by_file = groupby(pieces, key=lambda piece: piece[0].file)
    head = next(by_file, None)
    for number, file in enumerate(content.files):
        found = head[1] if head and head[0] == number else iter(())
        chunks = _filled(file, found)
        yield file, chunks
        for _ in chunks:
            pass
        if head and head[0] == number:
            head = next(by_file, None)


@dataclass(frozen=True, slots=True)
class _Use:
    """The bytes [begin, end) of a frame's plaintext belong at `file_offset` of a file."""

    file: int
    file_offset: int
    frame: Frame
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Step:
    """Fetch `frame`; then everything is there for `uses`, and after them nobody needs `done`."""

    frame: Frame
    place: FramePlace
    uses: tuple[_Use, ...]
    done: tuple[Frame, ...]


def _filled(file: PlannedFile, pieces: Iterator[tuple[_Use, bytes]]) -> Iterator[bytes]:
    """The pieces, with zeros where there is none."""
    position = 0
    for use, data in pieces:
        yield from _zeros(use.file_offset - position)
        yield data
        position = use.file_offset + len(data)
    yield from _zeros(file.size - position)


def _zeros(size: int) -> Iterator[bytes]:
    for begin in range(0, size, len(_ZEROS)):
        yield _ZEROS[: size - begin]


def _read(
    volumes: VolumeOpener, content: ChainFiles, executor: Executor
) -> Iterator[tuple[_Use, bytes]]:
    """Every use with its bytes. They are copied: a view would keep its whole frame in memory."""
    located = ChainFrames(content.links)
    frames: dict[Frame, bytes] = {}
    steps = _steps(_uses(content, located), located)
    fetch = partial(_fetch, volumes)
    for step, plain in map_in_order(executor, fetch, steps, FRAMES_AHEAD):
        frames[step.frame] = plain
        for use in step.uses:
            yield use, frames[use.frame][use.begin : use.end]
        for frame in step.done:
            del frames[frame]


def _uses(content: ChainFiles, located: ChainFrames) -> Iterator[_Use]:
    """Every file's pieces in their order, taken apart where frames end."""
    for number in range(len(content.files)):
        archive = content.archive(number)
        for piece in content.pieces_of_file(number):
            frames = located.of(piece.link, archive)
            offset, end = piece.archive_offset, piece.archive_offset + piece.length
            to_file = piece.file_offset - piece.archive_offset
            while offset < end:
                frame = frames.at(offset)
                begin, stop = frames.span(frame)
                stop = min(stop, end)
                key = Frame(piece.link, archive, frame)
                yield _Use(number, offset + to_file, key, offset - begin, stop - begin)
                offset = stop


def _steps(uses: Iterator[_Use], located: ChainFrames) -> Iterator[_Step]:
    """A step for each use of a frame that is not held; of each link the last one used is kept."""
    held: set[Frame] = set()
    last_of_link: dict[int, Frame] = {}
    fetched: Frame | None = None
    ready: list[_Use] = []

    def step(frame: Frame) -> _Step:
        done = tuple(held.difference(last_of_link.values()))
        held.difference_update(done)
        return _Step(frame, located.place(frame), tuple(ready), done)

    for use in uses:
        if use.frame not in held:
            if fetched is not None:
                yield step(fetched)
            fetched, ready = use.frame, []
            held.add(use.frame)
        last_of_link[use.frame.link] = use.frame
        ready.append(use)
    if fetched is not None:
        yield step(fetched)


def _fetch(volumes: VolumeOpener, step: _Step) -> tuple[_Step, bytes]:
    place = step.place
    data = volumes(place.label, place.volume).compressed(place.offset, place.stored_length)
    return step, decompress_frame(data, place.plain_length)
