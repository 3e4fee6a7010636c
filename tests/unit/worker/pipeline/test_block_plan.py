"""Blocks cover a volume exactly, within Azure's limits, and a volume ends before its own limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PgkeepError
from worker.pipeline.block_plan import (
    BLOCK_SIZE,
    MAX_BLOCK_ID,
    MAX_BLOCKS,
    VOLUME_LIMIT,
    Block,
    BlockCutter,
    block_id,
    volume_has_room,
)
from worker.pipeline.sealed_stream import SEGMENT_SIZE, TINK_1MB
from worker.pipeline.seekable_zstd import seek_table_length

SEGMENT = 16


def cut(
    full_segments: int, last: int, per_block: int, prefix: str = "w1"
) -> tuple[list[Block], BlockCutter]:
    cutter = BlockCutter(prefix, block_size=per_block * SEGMENT, segment_size=SEGMENT)
    pieces = [bytes([i & 255]) * SEGMENT for i in range(full_segments)] + [b"z" * last] * (last > 0)
    blocks = [block for piece in pieces for block in cutter.feed(piece)]
    return blocks + cutter.finish(), cutter


@given(st.integers(0, 40), st.integers(0, SEGMENT), st.integers(1, 9))
def test_blocks_cover_the_volume_exactly_and_end_where_segments_end(
    full_segments: int, last: int, per_block: int
) -> None:
    blocks, cutter = cut(full_segments, last, per_block)
    stored = b"".join(bytes([i & 255]) * SEGMENT for i in range(full_segments)) + b"z" * last
    assert b"".join(block.data for block in blocks) == stored
    assert all(len(block.data) == per_block * SEGMENT for block in blocks[:-1])
    assert all(block.data for block in blocks)
    assert cutter.ids == tuple(block.id for block in blocks)


@given(st.integers(1, 300), st.sampled_from(["a", "20261122-k3x7", "p" * 58]))
def test_block_ids_are_unique_of_equal_length_and_sort_in_order(count: int, prefix: str) -> None:
    blocks, _ = cut(count, 0, 1, prefix)
    ids = [block.id for block in blocks]
    assert ids == sorted(set(ids))
    assert {len(identifier) for identifier in ids} == {len(prefix) + 6}
    assert all(len(identifier) <= MAX_BLOCK_ID for identifier in ids)


def test_two_writers_have_no_block_id_in_common() -> None:
    assert set(cut(20, 3, 2, "w1")[1].ids).isdisjoint(cut(20, 3, 2, "w2")[1].ids)


@pytest.mark.parametrize("prefix", ["", "é", "p" * 59])
def test_a_prefix_that_azure_would_refuse_is_refused(prefix: str) -> None:
    with pytest.raises(PgkeepError, match="prefix"):
        block_id(prefix, 0)


@pytest.mark.parametrize("number", [-1, MAX_BLOCKS])
def test_no_block_lies_outside_the_limit_of_a_blob(number: int) -> None:
    assert block_id("w", MAX_BLOCKS - 1) == "w-49999"
    with pytest.raises(PgkeepError, match="outside the 50000 blocks"):
        block_id("w", number)


@pytest.mark.parametrize("block_size", [0, SEGMENT_SIZE + 1, SEGMENT_SIZE // 2])
def test_a_block_that_would_cut_a_segment_is_refused(block_size: int) -> None:
    with pytest.raises(PgkeepError, match="would cut segments"):
        BlockCutter("w", block_size=block_size)


def test_no_piece_follows_a_short_one_and_none_is_empty_or_too_long() -> None:
    cutter = BlockCutter("w", block_size=SEGMENT * 2, segment_size=SEGMENT)
    with pytest.raises(PgkeepError, match="no segment"):
        cutter.feed(b"")
    with pytest.raises(PgkeepError, match="no segment"):
        cutter.feed(bytes(SEGMENT + 1))
    cutter.feed(b"short")
    with pytest.raises(PgkeepError, match="follows the last"):
        cutter.feed(bytes(SEGMENT))


@given(st.integers(0, VOLUME_LIMIT), st.integers(0, 20_000), st.integers(1, 5 << 20))
def test_a_volume_with_room_stays_within_the_limit_when_stored(
    compressed: int, frames: int, next_frame: int
) -> None:
    stored = TINK_1MB.stored_length(compressed + next_frame + seek_table_length(frames + 1))
    assert volume_has_room(compressed, frames, next_frame) == (stored <= VOLUME_LIMIT)


def test_the_largest_volume_needs_far_fewer_blocks_than_a_blob_may_have() -> None:
    assert -(-VOLUME_LIMIT // BLOCK_SIZE) == 8192 < MAX_BLOCKS
