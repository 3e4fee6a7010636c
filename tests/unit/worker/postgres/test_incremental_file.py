"""Headers of INCREMENTAL files: read exactly, bounded, and refused when PostgreSQL wrote others."""

import struct
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup_index import IncrementalBlocks
from worker.postgres.incremental_file import BLOCKS_MAX, HeaderReader, IncrementalFileInvalid

BLOCK = 8192
MAGIC = 0xD3AE1F0D


def header(
    blocks: Sequence[int], truncation: int = 9, *, magic: int = MAGIC, count: int | None = None
) -> bytes:
    number = len(blocks) if count is None else count
    return struct.pack(f"<{3 + len(blocks)}I", magic, number, truncation, *blocks)


def read(raw: bytes, size: int, piece: int = 1 << 20) -> IncrementalBlocks:
    reader = HeaderReader(b"base/5/INCREMENTAL.1", size, BLOCK)
    at = 0
    while reader.missing and at < len(raw):
        at += reader.feed(memoryview(raw)[at : at + piece])
    return reader.result()


def size_of(blocks: Sequence[int]) -> int:
    return IncrementalBlocks(0, array("I", blocks)).file_size(BLOCK)


@given(
    st.sets(st.integers(0, BLOCKS_MAX - 1), max_size=3000).map(sorted),
    st.integers(0, BLOCKS_MAX),
    st.integers(1, 5000),
)
def test_a_header_is_read_back_in_pieces_of_any_size(
    blocks: list[int], truncation: int, piece: int
) -> None:
    raw = header(blocks, truncation) + b"the first block"
    assert read(raw, size_of(blocks), piece) == IncrementalBlocks(truncation, array("I", blocks))


@pytest.mark.parametrize(
    ("raw", "size", "why"),
    [
        (header([]), 11, "it has 11 bytes"),
        (header([], magic=1), 12, "it begins with 0x1"),
        (header([], count=BLOCKS_MAX + 1), 1 << 30, "it names 131073 blocks"),
        (header([], count=5), 12, "it names 5 blocks"),
        (header([], BLOCKS_MAX + 1), 12, "truncation length of 131073"),
        (header([2, 1]), size_of([1, 2]), "not in order"),
        (header([1, 1]), size_of([1, 2]), "not in order"),
        (header([BLOCKS_MAX]), size_of([1]), "it names block 131072"),
        (header([1]), size_of([1]) + 1, "for 1 blocks"),
        (header([]), BLOCK, "for 0 blocks"),
    ],
)
def test_c09_what_postgresql_does_not_write_is_refused(raw: bytes, size: int, why: str) -> None:
    with pytest.raises(IncrementalFileInvalid, match=why):
        read(raw, size)


@given(st.binary(min_size=12, max_size=200), st.integers(12, 1 << 31))
def test_c09_garbage_ends_in_one_error_and_never_asks_for_much(raw: bytes, size: int) -> None:
    try:
        reader = HeaderReader(b"x", size, BLOCK)
        reader.feed(memoryview(raw))
        assert reader.missing <= 4 * BLOCKS_MAX
        if not reader.missing:
            reader.result()
    except IncrementalFileInvalid:
        pass
