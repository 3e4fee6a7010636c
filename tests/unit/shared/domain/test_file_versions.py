"""Chains: the newest block wins, every file comes whole, and nothing is read that is not needed."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup_index import (
    BackupIndex,
    IncrementalBlocks,
    IndexedMember,
    IndexedVolume,
    MemberKind,
    MemberTable,
    is_incremental,
    whole_path,
)
from shared.domain.fetch_plan import SKIP_STORED, Fetch
from shared.domain.file_versions import ChainFiles
from shared.domain.not_restorable import NotRestorable
from shared.domain.restore_plan import REQUIRED, RestorePlan, plan_files, plan_restore

BLOCK = 16
HEADER = 512
PATHS = (b"base/1/1", b"base/1/2", b"base/1/3")

Blocks = dict[int, bytes]
"""By number; what is not there is zeros."""


@dataclass(frozen=True)
class Whole:
    """A file as a backup holds it in full."""

    content: bytes


@dataclass(frozen=True)
class Part:
    """An INCREMENTAL file."""

    truncation: int
    blocks: Blocks

    @property
    def held(self) -> IncrementalBlocks:
        return IncrementalBlocks(self.truncation, array("I", sorted(self.blocks)))


Version = Whole | Part


@dataclass
class Link:
    """One backup's tar stream and its index, cut into frames of `frame` bytes."""

    label: str
    frame: int = 64
    stream: bytearray = field(default_factory=bytearray)
    members: list[IndexedMember] = field(default_factory=list)

    def add(self, path: bytes, version: Version) -> None:
        held = None if isinstance(version, Whole) else version.held
        content = version.content if isinstance(version, Whole) else written(version)
        self.stream += bytes(HEADER)
        folder, _, name = path.rpartition(b"/")
        stored = path if held is None else folder + b"/INCREMENTAL." + name
        kind, offset = MemberKind.FILE, len(self.stream)
        self.members.append(
            IndexedMember("pgdata", stored, kind, len(content), 0o600, offset, incremental=held)
        )
        self.stream += content + bytes(-len(content) % HEADER)

    @property
    def index(self) -> BackupIndex:
        cuts = [*range(0, len(self.stream), self.frame), len(self.stream)]
        frames = tuple(end - begin for begin, end in pairwise(cuts) if end > begin)
        stored = tuple(7 for _ in frames)
        name = f"base.{self.label}"
        volume = IndexedVolume(name, "pgdata", 0, 0, sum(stored), stored, frames)
        return BackupIndex(self.label, (volume,), MemberTable(self.members))


def written(part: Part) -> bytes:
    """As PostgreSQL writes it; its header's words do not matter here."""
    header = bytes(part.held.data_offset(BLOCK))
    return header + b"".join(part.blocks[number] for number in sorted(part.blocks))


def combined(versions: Sequence[Version]) -> bytes:
    """What pg_combinebackup makes of two backups at a time, from the oldest on."""
    content = b""
    for version in versions:
        if isinstance(version, Whole):
            content = version.content
            continue
        length = version.held.length
        older = {
            number: content[number * BLOCK : (number + 1) * BLOCK]
            for number in range(min(version.truncation, len(content) // BLOCK))
        }
        blocks = {**older, **version.blocks}
        content = b"".join(blocks.get(number, bytes(BLOCK)) for number in range(length))
    return content


def applied(plan: RestorePlan, links: Sequence[Link]) -> dict[bytes, bytes]:
    """Every fetch carried out, and no byte written twice."""
    streams = {link.label: link.stream for link in links}
    files = [bytearray(file.size) for file in plan.files]
    seen = [bytearray(file.size) for file in plan.files]
    for fetch in plan.fetches:
        begin = fetch.stored_offset // 7 * next(x.frame for x in links if x.label == fetch.label)
        assert fetch.frames[0].extents
        assert fetch.frames[-1].extents
        for frame in fetch.frames:
            plain = streams[fetch.label][begin : begin + frame.plain_length]
            for extent in frame.extents:
                into = slice(extent.file_offset, extent.file_offset + extent.length)
                piece = plain[extent.plain_offset : extent.plain_offset + extent.length]
                assert len(piece) == extent.length
                assert not any(seen[extent.file][into])
                seen[extent.file][into] = bytes([1]) * extent.length
                files[extent.file][into] = piece
            begin += frame.plain_length
    return {file.path: bytes(content) for file, content in zip(plan.files, files, strict=True)}


def read_by_file(plan: RestorePlan, links: Sequence[Link]) -> dict[bytes, bytes]:
    """The same, file by file, as a synthetic full backup reads it."""
    found = {}
    for number, file in enumerate(plan.files):
        content = bytearray()
        for piece in plan.content.pieces_of_file(number):
            assert piece.file == number
            assert piece.file_offset >= len(content)
            content += bytes(piece.file_offset - len(content))
            end = piece.archive_offset + piece.length
            content += links[piece.link].stream[piece.archive_offset : end]
        found[file.path] = bytes(content) + bytes(file.size - len(content))
    return found


def plan_of(links: Sequence[Link]) -> RestorePlan:
    return plan_files([link.index for link in links], block_size=BLOCK, only=lambda _: True)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    numbers = draw(st.sets(st.integers(0, 12), max_size=8))
    content = {number: draw(st.binary(min_size=BLOCK, max_size=BLOCK)) for number in numbers}
    return Part(draw(st.integers(0, 13)), content)


WHOLES = st.integers(0, 12).flatmap(
    lambda blocks: st.binary(min_size=blocks * BLOCK, max_size=blocks * BLOCK).map(Whole)
)
HISTORIES = st.integers(1, 6).flatmap(
    lambda links: st.fixed_dictionaries(
        {
            path: st.tuples(WHOLES, *([st.one_of(parts(), parts(), parts(), WHOLES)] * (links - 1)))
            for path in PATHS
        }
    )
)


def chain_of(histories: Mapping[bytes, Sequence[Version]], frame: int = 64) -> list[Link]:
    links = [Link(f"link{number}", frame) for number in range(len(histories[PATHS[0]]))]
    for number, link in enumerate(links):
        # In another order each time: a chain's links need not list their files alike.
        for path in PATHS[number % 3 :] + PATHS[: number % 3]:
            link.add(path, histories[path][number])
    return links


@given(HISTORIES, st.sampled_from([40, 64, 512, 4096]))
def test_c06_a_chain_gives_what_combining_its_links_one_by_one_gives(
    histories: dict[bytes, tuple[Version, ...]], frame: int
) -> None:
    links = chain_of(histories, frame)
    plan = plan_of(links)
    expected = {path: combined(versions) for path, versions in histories.items()}
    assert applied(plan, links) == expected
    assert read_by_file(plan, links) == expected
    assert plan.file_bytes == sum(map(len, expected.values()))


def blocks_of(letter: str, *numbers: int) -> Blocks:
    return {number: letter.encode() * BLOCK for number in numbers}


def test_a_block_that_was_cut_off_meanwhile_does_not_come_back_from_the_full_backup() -> None:
    """The relation shrank to two blocks before the second backup and was extended before the third.

    PostgreSQL logs nothing of blocks that it adds but does not use: they are zeros.
    """
    links = chain_of(
        {
            path: [
                Whole(b"F" * 4 * BLOCK),
                Part(2, blocks_of("a", 1)),
                Part(4, blocks_of("b", 2)),
            ]
            for path in PATHS
        }
    )
    assert applied(plan_of(links), links)[PATHS[0]] == b"".join(
        [b"F" * BLOCK, b"a" * BLOCK, b"b" * BLOCK, bytes(BLOCK)]
    )


def test_of_a_visibility_map_nothing_is_believed_but_the_newest_backup() -> None:
    """An older block may say of rows that were deleted since that everybody sees them."""
    full, first, newest = (Link(label, frame=BLOCK) for label in ("F", "a", "b"))
    for path in (b"base/1/7_vm", b"base/1/7_vm.1", b"base/1/7"):
        full.add(path, Whole(b"F" * 3 * BLOCK))
        first.add(path, Part(3, blocks_of("a", 0)))
        newest.add(path, Part(3, blocks_of("b", 1)))
    links = [full.index, first.index, newest.index]
    files = ChainFiles(links, BLOCK, lambda _path: True)
    sources = {
        item.path: {piece.link for piece in files.pieces_of_file(number)}
        for number, item in enumerate(files.files)
    }
    assert sources == {b"base/1/7_vm": {2}, b"base/1/7_vm.1": {2}, b"base/1/7": {0, 1, 2}}
    assert {item.size for item in files.files} == {3 * BLOCK}


def test_b18_a_file_that_the_newest_backup_lacks_is_not_restored_nor_read() -> None:
    old, new = Link("old"), Link("new")
    old.add(b"base/1/dropped", Whole(b"D" * 40 * BLOCK))
    old.add(b"base/1/kept", Whole(b"K" * BLOCK))
    new.add(b"base/1/kept", Part(1, {}))
    plan = plan_of([old, new])
    assert [file.path for file in plan.files] == [b"base/1/kept"]
    assert applied(plan, [old, new]) == {b"base/1/kept": b"K" * BLOCK}
    only = [(fetch.label, len(fetch.frames)) for fetch in plan.fetches]
    assert only == [("old", 1)]


def test_frames_whose_every_block_was_replaced_are_not_fetched() -> None:
    old, new = Link("old", frame=512), Link("new", frame=512)
    old.add(b"base/1/1", Whole(b"O" * 64 * BLOCK))
    new.add(b"base/1/1", Part(64, blocks_of("N", *range(64))))
    plan = plan_of([old, new])
    assert {fetch.label for fetch in plan.fetches} == {"new"}
    assert applied(plan, [old, new])[b"base/1/1"] == b"N" * 64 * BLOCK


def test_a_short_stretch_that_nobody_needs_is_read_and_a_long_one_is_not() -> None:
    def fetches(stored: int) -> list[Fetch]:
        old, new = Link("old", frame=512), Link("new")
        old.add(b"base/1/1", Whole(b"O" * 128 * BLOCK))
        new.add(b"base/1/1", Part(128, blocks_of("N", *range(32, 96))))
        index = old.index
        volume = index.volumes[0]
        sizes = (stored,) * len(volume.frame_plain)
        large = IndexedVolume("base.old", "pgdata", 0, 0, 0, sizes, volume.frame_plain)
        chain = [BackupIndex("old", (large,), index.members), new.index]
        plan = plan_files(chain, block_size=BLOCK, only=lambda _: True)
        return [fetch for fetch in plan.fetches if fetch.label == "old"]

    (together,) = fetches(SKIP_STORED // 2)
    assert [bool(frame.extents) for frame in together.frames] == [True, False, False, True]
    assert len(fetches(SKIP_STORED)) == 2


def test_single_files_of_a_chain_come_without_the_others() -> None:
    links = chain_of({path: [Whole(path), Whole(path * 2)] for path in PATHS})
    plan = plan_files(
        [link.index for link in links], block_size=BLOCK, only=lambda path: path == PATHS[1]
    )
    assert applied(plan, links) == {PATHS[1]: PATHS[1] * 2}


def sound_chain() -> list[Link]:
    links = [Link("full"), Link("first"), Link("second")]
    for link in links:
        for path in REQUIRED:
            link.add(path, Whole(b"x"))
    versions: list[Version] = [Whole(b"F" * 2 * BLOCK), Part(2, blocks_of("a", 1)), Part(2, {})]
    for link, version in zip(links, versions, strict=True):
        link.add(b"base/1/1", version)
    return links


def test_a_restore_of_a_chain_leaves_out_what_the_caller_writes() -> None:
    links = sound_chain()
    plan = plan_restore(
        [link.index for link in links], [], block_size=BLOCK, without={b"backup_label"}
    )
    assert plan.chain == ("full", "first", "second")
    assert plan.label == "second"
    assert applied(plan, links) == {
        b"global/pg_control": b"x",
        b"PG_VERSION": b"x",
        b"base/1/1": b"F" * BLOCK + b"a" * BLOCK,
    }


def refusal(links: Sequence[Link]) -> str:
    with pytest.raises(NotRestorable) as refused:
        plan_restore([link.index for link in links], [], block_size=BLOCK)
    return refused.value.fact


def test_c03_a_chain_without_its_full_backup_is_refused() -> None:
    assert "no backup of the chain holds b'base/1/1' whole" in refusal(sound_chain()[1:])


def test_c03_a_link_that_does_not_know_the_file_is_refused() -> None:
    links = sound_chain()
    links[1].members = [member for member in links[1].members if not member.incremental]
    assert "builds on backup first, which does not hold it" in refusal(links)


def test_c03_a_gap_in_an_older_link_is_found_when_planning() -> None:
    links = sound_chain()
    links[0].members[-1] = IndexedMember(
        "pgdata", b"base/1/1", MemberKind.FILE, 2 * BLOCK, 0o600, len(links[0].stream)
    )
    assert "backup full: b'base/1/1' lies outside the volumes" in refusal(links)


def test_c08_a_file_that_only_looks_incremental_is_refused() -> None:
    links = sound_chain()[:1]
    links[0].add(b"base/1/INCREMENTAL.7", Whole(b"y"))
    assert "is named like a part of a file, but is none" in refusal(links)


def test_c09_an_index_that_names_more_blocks_than_the_file_can_hold_is_refused() -> None:
    links = sound_chain()
    member = links[2].members[-1]
    links[2].members[-1] = IndexedMember(
        "pgdata",
        member.path,
        member.kind,
        member.size,
        0o600,
        member.offset,
        incremental=Part(2, blocks_of("z", 1)).held,
    )
    assert "holds other blocks than its size allows" in refusal(links)


MEMBERS = st.lists(
    st.builds(
        IndexedMember,
        archive=st.sampled_from(["pgdata", "16385", "7"]),
        path=st.binary(min_size=1, max_size=9),
        kind=st.sampled_from(MemberKind),
        size=st.integers(0, 2**60),
        mode=st.integers(0, 0o7777),
        offset=st.integers(0, 2**60),
        target=st.binary(max_size=5),
        incremental=st.none() | parts().map(lambda part: part.held),
    ),
    max_size=9,
)


@given(MEMBERS)
def test_a_table_of_members_holds_what_was_put_in(members: list[IndexedMember]) -> None:
    table = MemberTable(members)
    assert list(table) == members
    assert table == tuple(members)
    assert [table[number] for number in range(len(members))] == members
    assert table[1:3] == members[1:3]
    assert members == [] or table != members[1:]
    assert table[-1:] == members[-1:]


def test_names_of_parts_are_told_from_others_by_their_last_component() -> None:
    assert is_incremental(b"pg_tblspc/1/PG_17_202406281/5/INCREMENTAL.1259.1")
    assert is_incremental(b"global/INCREMENTAL.1262")
    assert not is_incremental(b"INCREMENTAL.d/1259")
    assert not is_incremental(b"log/INCREMENTAL.txt")
    assert whole_path(b"base/5/INCREMENTAL.1259_vm") == b"base/5/1259_vm"
    assert whole_path(b"base/5/1259") == b"base/5/1259"


def test_the_header_of_a_part_is_padded_only_when_blocks_follow() -> None:
    """GetIncrementalHeaderSize: three words, one for each block, and then whole blocks."""
    assert IncrementalBlocks(9, array("I")).file_size(8192) == 12
    assert IncrementalBlocks(9, array("I", [3])).file_size(8192) == 2 * 8192
    assert IncrementalBlocks(0, array("I", range(2045))).data_offset(8192) == 8192
    assert IncrementalBlocks(0, array("I", range(2046))).data_offset(8192) == 2 * 8192


def test_a_plan_keeps_no_more_of_an_index_than_the_chain_needs() -> None:
    links = sound_chain()
    content = ChainFiles([link.index for link in links], BLOCK, lambda _: True)
    held = [content.version(number, len(content.files) - 1) for number in range(3)]
    assert [member and member.path for member in held] == [
        b"base/1/1",
        b"base/1/INCREMENTAL.1",
        b"base/1/INCREMENTAL.1",
    ]
    whole = [content.version(number, 0) for number in range(3)]
    assert [member is not None for member in whole] == [False, False, True]
