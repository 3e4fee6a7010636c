"""Files read out of a chain are those of its newest state, and each frame is fetched once."""

from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import cast

import pytest

from shared.domain.backup_index import (
    BackupIndex,
    IncrementalBlocks,
    IndexedMember,
    IndexedVolume,
    MemberKind,
    MemberTable,
)
from shared.domain.restore_plan import RestorePlan, plan_files
from worker.commands.chain_reader import read_files
from worker.commands.fetched_files import VolumeOpener
from worker.pipeline.seekable_zstd import compress_frame

BLOCK = 512
ARCHIVES = ("16385", "pgdata")
FRAME = 4096


@dataclass
class Blob:
    """A volume's zstd stream; `reads` are the frames that were asked for, by their offsets."""

    stream: bytes
    frames: Sequence[int]
    reads: list[int] = field(default_factory=list)

    def compressed(self, offset: int, length: int) -> memoryview:
        self.reads += [start for start in self.frames if offset <= start < offset + length]
        return memoryview(self.stream)[offset : offset + length]


@dataclass
class Link:
    """One backup: of each archive its tar stream, cut into frames and these into volumes."""

    label: str
    streams: dict[str, bytearray] = field(
        default_factory=lambda: {archive: bytearray() for archive in ARCHIVES}
    )
    members: MemberTable = field(default_factory=MemberTable)
    blobs: dict[str, Blob] = field(default_factory=dict)

    def add(self, archive: str, name: bytes, data: bytes, held: IncrementalBlocks | None) -> None:
        stream = self.streams[archive]
        stream += bytes(BLOCK)
        stored = name if held is None else b"INCREMENTAL." + name
        offset, kind = len(stream), MemberKind.FILE
        self.members.append(
            IndexedMember(archive, stored, kind, len(data), 0o600, offset, incremental=held)
        )
        stream += data + bytes(-len(data) % BLOCK)

    def index(self, random: Random) -> BackupIndex:
        volumes: list[IndexedVolume] = []
        for archive, stream in self.streams.items():
            cut = random.randrange(len(stream) + 1)
            begin = 0
            for number, part in enumerate((stream[:cut], stream[cut:])):
                volumes.append(self._volume(archive, number, begin, part))
                begin += len(part)
        return BackupIndex(self.label, tuple(volumes), self.members)

    def _volume(self, archive: str, number: int, begin: int, part: bytearray) -> IndexedVolume:
        plains = [bytes(part[at : at + FRAME]) for at in range(0, len(part), FRAME)]
        frames = [compress_frame(plain) for plain in plains]
        offsets = [sum(map(len, frames[:at])) for at in range(len(frames))]
        name, stream = f"{archive}.{number}", b"".join(frames)
        self.blobs[name] = Blob(stream, offsets)
        sizes = (tuple(map(len, frames)), tuple(map(len, plains)))
        return IndexedVolume(name, archive, number, begin, len(stream), *sizes)


@dataclass(frozen=True)
class Chain:
    """A chain and what each of its files is in the end."""

    links: Sequence[Link]
    plan: RestorePlan
    expected: dict[bytes, bytes]

    def read(self) -> Iterator[tuple[bytes, Iterator[bytes]]]:
        with ThreadPoolExecutor(3) as executor:
            volumes = cast("VolumeOpener", self.volume)
            for file, chunks in read_files(volumes, self.plan, executor):
                yield file.path, chunks

    def volume(self, label: str, name: str) -> Blob:
        return self.links[int(label)].blobs[name]

    @property
    def blobs(self) -> list[Blob]:
        return [blob for link in self.links for blob in link.blobs.values()]


def make_chain(seed: int, incrementals: int, files: int = 40) -> Chain:
    """Files grow, shrink, stay; every block of an older link that counts differs from a newer's."""
    random = Random(seed)  # noqa: S311 - the same chain each time
    names = sorted((random.choice(ARCHIVES), b"%03d" % number) for number in range(files))
    state = {name: random.randbytes(BLOCK * random.choice((0, 1, 3, 40))) for name in names}
    links = [Link("0")]
    for name, data in state.items():
        links[0].add(*name, data, None)
    for number in range(incrementals):
        links.append(Link(str(number + 1)))
        for name in names:
            if random.random() < 0.1:
                state[name] = random.randbytes(random.randrange(3 * BLOCK))
                links[-1].add(*name, state[name], None)
            elif len(state[name]) % BLOCK == 0:
                state[name], blocks, held = changed(state[name], random)
                links[-1].add(*name, blocks, held)
            else:
                links[-1].add(*name, state[name], None)
    indexes = [link.index(random) for link in links]
    plan = plan_files(indexes, block_size=BLOCK, only=lambda _: True)
    expected = {
        name if archive == "pgdata" else b"pg_tblspc/16385/" + name: data
        for (archive, name), data in state.items()
    }
    return Chain(links, plan, expected)


def changed(data: bytes, random: Random) -> tuple[bytes, bytes, IncrementalBlocks]:
    """The new content, and the INCREMENTAL file that says so."""
    length = len(data) // BLOCK
    truncation = random.choice((length, length // 2))
    new_length = truncation + random.choice((0, 0, 2, 5))
    numbers = [number for number in range(new_length) if random.random() < 0.2]
    blocks = {number: random.randbytes(BLOCK) for number in numbers}
    held = IncrementalBlocks(truncation, array("I", numbers))
    content = b"".join(
        blocks.get(number, data[number * BLOCK : (number + 1) * BLOCK])
        if number < truncation
        else blocks.get(number, bytes(BLOCK))
        for number in range(held.length)
    )
    header = bytes(held.data_offset(BLOCK))
    return content, header + b"".join(blocks[number] for number in numbers), held


@pytest.mark.parametrize("seed", range(8))
def test_every_file_is_read_as_the_newest_link_has_it(seed: int) -> None:
    chain = make_chain(seed, incrementals=seed % 4)
    found = {path: b"".join(chunks) for path, chunks in chain.read()}
    assert found == chain.expected
    assert list(found) == [file.path for file in chain.plan.files]


def test_no_frame_is_fetched_twice_while_links_have_one_order() -> None:
    chain = make_chain(1, incrementals=3, files=200)
    for _, chunks in chain.read():
        assert all(0 < len(chunk) <= FRAME for chunk in chunks)
    assert any(blob.reads for blob in chain.blobs)
    assert all(len(blob.reads) == len(set(blob.reads)) for blob in chain.blobs)


def test_a_content_that_nobody_takes_is_passed_over() -> None:
    chain = make_chain(2, incrementals=2)
    files = enumerate(chain.read())
    found = {
        path: next(chunks, b"") if number % 2 else b"".join(chunks)
        for number, (path, chunks) in files
    }
    read, skimmed = chain.plan.files[::2], chain.plan.files[1::2]
    assert all(found[file.path] == chain.expected[file.path] for file in read)
    assert all(chain.expected[file.path].startswith(found[file.path]) for file in skimmed)


def test_what_nothing_fills_is_zeros_in_bounded_pieces() -> None:
    link, size = Link("0"), 5 << 20
    link.add("pgdata", b"1", b"", None)
    grown = Link("1")
    grown.add("pgdata", b"1", bytes(12), IncrementalBlocks(size // BLOCK, array("I")))
    random = Random(0)  # noqa: S311 - the same chain each time
    indexes = [one.index(random) for one in (link, grown)]
    plan = plan_files(indexes, block_size=BLOCK, only=lambda _: True)
    [(_, lengths)] = [
        (path, [len(chunk) for chunk in chunks if not any(chunk)])
        for path, chunks in Chain((link, grown), plan, {}).read()
    ]
    assert sum(lengths) == size
    assert max(lengths) <= 1 << 20
