"""The index of a backup is read back as it was written, and nothing else is read."""

import json
from array import array
from base64 import b64encode

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
)
from worker.pipeline.tar_index import (
    IndexInvalid,
    head_line,
    member_line,
    read_index,
    volume_line,
)

LABEL = "20261122T030000Z-F-k3x7"
HEAD = head_line(LABEL)
SIZES = st.integers(0, 2**53)
PATHS = st.one_of(
    st.binary(min_size=1, max_size=30), st.text(min_size=1, max_size=20).map(str.encode)
)
MEMBERS = st.builds(
    IndexedMember,
    archive=st.sampled_from(["pgdata", "16385"]),
    path=PATHS,
    kind=st.sampled_from(MemberKind),
    size=SIZES,
    mode=st.integers(0, 0o7777),
    offset=SIZES,
    target=st.binary(max_size=20),
    incremental=st.none()
    | st.builds(
        IncrementalBlocks,
        st.integers(0, 2**31 - 1),
        st.sets(st.integers(0, 2**31 - 1)).map(lambda blocks: array("I", sorted(blocks))),
    ),
)
VOLUMES = st.lists(st.tuples(SIZES, SIZES), max_size=5).map(
    lambda frames: IndexedVolume(
        name="base.pgdata.0000",
        archive="pgdata",
        number=0,
        start=7,
        stored_size=9,
        frame_stored=tuple(stored for stored, _ in frames),
        frame_plain=tuple(plain for _, plain in frames),
    )
)


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(st.lists(VOLUMES, max_size=3), st.lists(MEMBERS, max_size=6), st.integers(1, 50))
def test_b15_an_index_is_read_back_byte_for_byte_in_pieces_of_any_size(
    volumes: list[IndexedVolume], members: list[IndexedMember], size: int
) -> None:
    text = HEAD + b"".join([*map(volume_line, volumes), *map(member_line, members)])
    assert read_index(in_pieces(text, size)) == BackupIndex(
        LABEL, (*volumes,), MemberTable(members)
    )


def test_a_name_that_is_utf_8_can_be_read_by_a_person_and_another_is_hex() -> None:
    plain = IndexedMember("pgdata", "Köln".encode(), MemberKind.FILE, 1, 0o600, 512)
    odd = IndexedMember("pgdata", b"\xff\n", MemberKind.FILE, 1, 0o600, 512)
    assert "Köln" in member_line(plain).decode()
    assert json.loads(member_line(odd))["encoded_path"] == "ff0a"


def words(*numbers: int) -> str:
    return b64encode(array("I", numbers).tobytes()).decode()


def with_blocks(blocks: str, truncation: int = 1) -> bytes:
    return json.dumps(
        {**GOOD, "incremental": {"truncation": truncation, "blocks": blocks}}
    ).encode()


GOOD = json.loads(member_line(IndexedMember("pgdata", b"a", MemberKind.FILE, 1, 0o600, 512)))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"line":"other"}',
        b'{"line":"head","format":"pgkeep-index-2","label":"x"}',
        json.dumps({**GOOD, "size": -1}).encode(),
        json.dumps({**GOOD, "mode": 0o10000}).encode(),
        json.dumps({**GOOD, "kind": "device"}).encode(),
        json.dumps({**GOOD, "encoded_path": "ff"}).encode(),
        json.dumps({**GOOD, "path": None}).encode(),
        json.dumps({**GOOD, "path": None, "encoded_path": "f"}).encode(),
        json.dumps({**GOOD, "target": "zz"}).encode(),
        json.dumps({**GOOD, "colour": 1}).encode(),
        with_blocks("A"),
        with_blocks("AAAA"),
        with_blocks("!!!!"),
        with_blocks(words(2, 1)),
        with_blocks(words(1, 1)),
        with_blocks(words(2**31)),
        with_blocks("", truncation=-1),
    ],
)
def test_a_line_that_does_not_fit_is_refused_by_its_number(line: bytes) -> None:
    with pytest.raises(IndexInvalid, match="line 2 of the index"):
        read_index([HEAD + line + b"\n"])


def test_an_index_without_a_head_or_that_ends_inside_a_line_is_refused() -> None:
    with pytest.raises(IndexInvalid, match="no head"):
        read_index([])
    with pytest.raises(IndexInvalid, match="ends inside a line"):
        read_index([HEAD, b'{"line'])


def test_of_a_chains_older_links_only_the_versions_of_wanted_files_are_kept() -> None:
    path = b"base/5/INCREMENTAL.1259"
    part = IndexedMember(
        "pgdata", path, MemberKind.FILE, 1, 0o600, 512, incremental=IncrementalBlocks(1, array("I"))
    )
    other = IndexedMember("pgdata", b"base/5/1260", MemberKind.FILE, 1, 0o600, 512)
    text = HEAD + member_line(part) + member_line(other)
    found = read_index([text], {b"base/5/1259": path})
    assert found.members == (part,)
    assert found.members[0].path is path
    found = read_index([text], {b"base/5/1260": b"base/5/INCREMENTAL.1260"})
    assert found.members == (other,)
