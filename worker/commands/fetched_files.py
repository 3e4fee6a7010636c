"""Carrying out a plan: fetch, open, decompress and write every piece where it belongs."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from operator import attrgetter

from shared.domain.fetch_plan import Extent, Fetch
from shared.domain.file_versions import PlannedFile
from shared.domain.restore_plan import RestorePlan
from shared.errors import Corrupt
from worker.commands.opened_chain import OpenedChain
from worker.commands.services import Services
from worker.pipeline.file_writer import TargetTree
from worker.pipeline.in_order import map_in_order
from worker.pipeline.sealed_download import SealedBlob

VolumeOpener = Callable[[str, str], SealedBlob]
"""By the label of a link and the volume's name, from any thread."""


@dataclass(frozen=True, slots=True)
class _Applied:
    """One fetch: bytes read from the store, bytes written, the composed files it wrote to."""

    label: str
    stored: int
    written: int
    composed: tuple[int, ...]


def volume_opener(chain: OpenedChain) -> VolumeOpener:
    """Opens a volume when it is first asked for, which proves its length, and keeps it."""
    links = {link.stored.document.label: link for link in chain.links}
    # Two threads may open one volume at the same time: either result will do.
    return cache(lambda label, name: links[label].volume(name))


def write_files(
    services: Services,
    executor: Executor,
    volumes: VolumeOpener,
    plan: RestorePlan,
    tree: TargetTree,
    composed: Callable[[PlannedFile], None],
) -> int:
    """Every file of the plan, those without content too. Returns the stored bytes it asked for.

    `composed` is told of each composed file when all of it is written, soon after its last piece:
    who reads it then need not wait for the disk. Raises Corrupt that names backup, volume, segment
    and file; TargetUnusable, DiskFull; and what the store raises.
    """
    work = partial(_apply, volumes, plan, tree)
    depth = services.settings.worker.transfer_threads + 1
    done, fetched, total = 0, 0, plan.file_bytes
    whole = _WholeFiles(plan)
    for applied in map_in_order(executor, work, plan.fetches, depth):
        fetched += applied.stored
        done += applied.written
        services.progress.advance(done, total)
        for file in whole.after(applied):
            composed(file)
    for file in plan.files:
        if file.composed or not file.size:
            tree.ensure(file)
    for file in whole.rest():
        composed(file)
    return fetched


class _WholeFiles:
    """Tells when composed files are complete.

    The link that holds a file whole is the last one that is read of it, in the order of the
    stream: there a file is complete as soon as another one follows.
    """

    def __init__(self, plan: RestorePlan) -> None:
        self._plan = plan
        self._open: int | None = None
        self._told = bytearray(len(plan.files))

    def after(self, applied: _Applied) -> Iterator[PlannedFile]:
        content = self._plan.content
        for number in applied.composed:
            if number != self._open and self._plan.chain[content.base(number)] == applied.label:
                yield from self._close()
                self._open = number

    def rest(self) -> Iterator[PlannedFile]:
        yield from self._close()
        for number, file in enumerate(self._plan.files):
            if file.composed and not self._told[number]:
                yield file

    def _close(self) -> Iterator[PlannedFile]:
        if self._open is not None:
            self._told[self._open] = True
            yield self._plan.files[self._open]


def _apply(volumes: VolumeOpener, plan: RestorePlan, tree: TargetTree, fetch: Fetch) -> _Applied:
    written, composed = 0, dict[int, None]()
    try:
        for frame, plain in volumes(fetch.label, fetch.volume).frames(fetch):
            view = memoryview(plain)
            for number, extents in groupby(frame.extents, key=attrgetter("file")):
                file = plan.files[number]
                written += tree.write(file, _pieces(view, extents))
                if file.composed:
                    composed[number] = None
    except Corrupt as error:
        first = plan.files[fetch.frames[0].extents[0].file].path
        where = f"{first!r} lies, or a file behind it"
        raise damaged(error, fetch.label, where) from None
    return _Applied(fetch.label, fetch.stored_length, written, tuple(composed))


def _pieces(plain: memoryview, extents: Iterator[Extent]) -> Iterator[tuple[int, memoryview]]:
    for extent in extents:
        end = extent.plain_offset + extent.length
        yield extent.file_offset, plain[extent.plain_offset : end]


def damaged(error: Corrupt, label: str, where: str) -> Corrupt:
    """The same error, told as what is wrong with a backup that others may build on."""
    fact = f"backup {label} is damaged where {where}: {error.fact}"
    hint = (
        f"Restore a backup whose chain does without {label}: `pgkeep list` shows which there are."
    )
    return type(error)(fact, hint=hint)
