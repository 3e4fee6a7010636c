"""Cuts a sealed volume into Azure blocks, and says when a volume must end.

A block is 8 MiB, eight segments, so a block's boundary is a segment's boundary.
"""

from dataclasses import dataclass

from shared.errors import PgkeepError
from worker.pipeline.sealed_stream import SEGMENT_SIZE, TINK_1MB
from worker.pipeline.seekable_zstd import seek_table_length

BLOCK_SIZE = 8 * SEGMENT_SIZE
VOLUME_LIMIT = 64 << 30

# https://learn.microsoft.com/rest/api/storageservices/put-block: a blob has at most 50,000 blocks;
# all its block ids have one length, at most 64 bytes before base64.
MAX_BLOCKS = 50_000
MAX_BLOCK_ID = 64
_COUNTER_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Block:
    """`id` is what stage_block takes, before base64."""

    id: str
    data: bytes


def block_id(prefix: str, number: int) -> str:
    """`<prefix>-<number>`, of one length for all blocks of a blob. Blocks count from 0.

    `prefix` is unique to the writer and the attempt: two writers of one name stage blocks that
    never mix, whichever of them commits.
    """
    if not (prefix.isascii() and 0 < len(prefix) < MAX_BLOCK_ID - _COUNTER_DIGITS):
        raise PgkeepError(f"block id prefix {prefix!r} is empty, too long or not ASCII")
    if not 0 <= number < MAX_BLOCKS:
        raise PgkeepError(f"block {number} is outside the {MAX_BLOCKS} blocks of a blob")
    return f"{prefix}-{number:0{_COUNTER_DIGITS}d}"


class BlockCutter:
    """Gathers the pieces of one sealed volume into blocks, in order; `prefix` as in `block_id`."""

    def __init__(
        self, prefix: str, *, block_size: int = BLOCK_SIZE, segment_size: int = SEGMENT_SIZE
    ) -> None:
        if block_size <= 0 or block_size % segment_size:
            raise PgkeepError(f"blocks of {block_size} bytes would cut segments of {segment_size}")
        self._prefix = prefix
        self._segment_size = segment_size
        self._segments_per_block = block_size // segment_size
        self._pieces: list[bytes] = []
        self._ids: list[str] = []
        self._ended = False

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all blocks so far, in the order in which they are to be committed."""
        return tuple(self._ids)

    def feed(self, piece: bytes) -> list[Block]:
        """`piece` is one stored segment; only the last one may be shorter than the others."""
        if self._ended or not 0 < len(piece) <= self._segment_size:
            raise PgkeepError(f"a piece of {len(piece)} bytes is no segment, or follows the last")
        self._ended = len(piece) < self._segment_size
        self._pieces.append(piece)
        full = len(self._pieces) == self._segments_per_block
        return [self._cut()] if full else []

    def finish(self) -> list[Block]:
        """The last block, unless the volume ended with a full one."""
        self._ended = True
        return [self._cut()] if self._pieces else []

    def _cut(self) -> Block:
        block = Block(block_id(self._prefix, len(self._ids)), b"".join(self._pieces))
        self._pieces.clear()
        self._ids.append(block.id)
        return block


def volume_has_room(
    compressed: int, frames: int, next_frame: int, limit: int = VOLUME_LIMIT
) -> bool:
    """Whether a volume of `frames` frames, `compressed` bytes, stays within `limit` with one more.

    Counts the volume as it will be stored: with its seek table, header and tags.
    """
    stream = compressed + next_frame + seek_table_length(frames + 1)
    return TINK_1MB.stored_length(stream) <= limit
