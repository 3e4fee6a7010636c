"""Files written from a chain: whole when they are said to be, and nothing opened in vain."""

from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from shared.domain.backup_index import (
    BackupIndex,
    IncrementalBlocks,
    IndexedMember,
    IndexedVolume,
    MemberKind,
    MemberTable,
)
from shared.domain.fetch_plan import Fetch, PlannedFrame
from shared.domain.file_versions import PlannedFile
from shared.domain.restore_plan import RestorePlan, plan_files
from shared.errors import FrameCorrupt
from worker.commands.fetched_files import write_files
from worker.pipeline.file_writer import TargetTree

BLOCK, HEADER, FRAME = 64, 512, 640
FILES = tuple(b"base/1/%d" % number for number in range(1, 9))

Content = dict[bytes, bytes]


class Link:
    """One backup's stream, its index, and what it means for the files."""

    def __init__(self, label: str) -> None:
        self.label, self.stream = label, bytearray()
        self.members = MemberTable()

    def add(self, path: bytes, content: bytes, held: IncrementalBlocks | None = None) -> None:
        folder, _, name = path.rpartition(b"/")
        stored = path if held is None else folder + b"/INCREMENTAL." + name
        self.stream += bytes(HEADER)
        offset, kind = len(self.stream), MemberKind.FILE
        member = IndexedMember("pgdata", stored, kind, len(content), 0o600, offset, b"", held)
        self.members.append(member)
        self.stream += content + bytes(-len(content) % HEADER)

    @property
    def index(self) -> BackupIndex:
        cuts = [*range(0, len(self.stream), FRAME), len(self.stream)]
        plain = tuple(end - begin for begin, end in pairwise(cuts) if end > begin)
        # As big as a request may be: every fetch holds one needed frame, or two near ones.
        stored = (5 << 20,) * len(plain)
        volume = IndexedVolume("base", "pgdata", 0, 0, sum(stored), stored, plain)
        return BackupIndex(self.label, (volume,), self.members)

    def frames(self, fetch: Fetch) -> Iterator[tuple[PlannedFrame, bytes]]:
        begin = fetch.stored_offset // (5 << 20) * FRAME
        for frame in fetch.frames:
            if frame.extents:
                yield frame, bytes(self.stream[begin : begin + frame.plain_length])
            begin += frame.plain_length


def chain(random: Random) -> tuple[list[Link], Content]:
    """Three links of files that are changed, cut, lengthened and made anew, and the result."""
    links, content = [Link("full"), Link("one"), Link("two")], Content()
    for link in links:
        for path in FILES:
            older = content.get(path, b"")
            if link.label == "full" or random.random() < 0.2:
                content[path] = random.randbytes(BLOCK * random.randrange(40))
                link.add(path, content[path])
            else:
                held = IncrementalBlocks(random.randrange(50), some_blocks(random))
                blocks = {number: random.randbytes(BLOCK) for number in held.blocks}
                link.add(path, bytes(held.data_offset(BLOCK)) + b"".join(blocks.values()), held)
                content[path] = changed(older, held, blocks)
    return links, content


def some_blocks(random: Random) -> "array[int]":
    return array("I", sorted(random.sample(range(50), random.choice([0, 1, 5, 30]))))


def changed(older: bytes, held: IncrementalBlocks, blocks: dict[int, bytes]) -> bytes:
    kept = older[: held.truncation_length * BLOCK]
    whole = bytearray(kept + bytes(held.length * BLOCK - len(kept)))
    for number, block in blocks.items():
        whole[number * BLOCK : (number + 1) * BLOCK] = block
    return bytes(whole)


def planned(links: list[Link]) -> RestorePlan:
    return plan_files([link.index for link in links], block_size=BLOCK, only=lambda _: True)


def services() -> Any:
    worker = SimpleNamespace(transfer_threads=3)
    progress = SimpleNamespace(advance=lambda done, total: None)
    return SimpleNamespace(settings=SimpleNamespace(worker=worker), progress=progress)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[TargetTree]:
    tree = TargetTree(tmp_path / "data", (), None)
    tree.prepare([PlannedFile(path, 0, 0o700) for path in (b"base", b"base/1", b"global")], "test")
    yield tree
    tree.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_composed_file_is_told_once_and_only_when_all_of_it_is_there(
    tree: TargetTree, seed: int
) -> None:
    links, content = chain(Random(seed))  # noqa: S311 - repeats itself
    by_label = {link.label: link for link in links}
    plan, told = planned(links), []

    def composed(file: PlannedFile) -> None:
        told.append(file.path)
        assert (tree.root / file.path.decode()).read_bytes() == content[file.path]

    opener: Any = lambda label, _: by_label[label]  # noqa: E731 - typed as what it stands for
    with ThreadPoolExecutor(3) as executor:
        fetched = write_files(services(), executor, opener, plan, tree, composed)
    assert fetched == plan.fetched_bytes
    assert sorted(told) == sorted(file.path for file in plan.files if file.composed)
    for path, expected in content.items():
        assert (tree.root / path.decode()).read_bytes() == expected


def test_damage_names_the_backup_and_a_file_that_needs_it(tree: TargetTree) -> None:
    links, _ = chain(Random(1))  # noqa: S311 - repeats itself

    def rotten(_: Fetch) -> Iterator[tuple[PlannedFrame, bytes]]:
        raise FrameCorrupt("frame 7 of base is no frame")

    opener: Any = lambda label, _: SimpleNamespace(frames=rotten)  # noqa: E731
    with (
        ThreadPoolExecutor(3) as executor,
        pytest.raises(
            FrameCorrupt, match=r"backup two is damaged where b'base/1/.*: frame 7"
        ) as no,
    ):
        write_files(services(), executor, opener, planned(links), tree, lambda _: None)
    assert "does without two" in no.value.advice
