"""One sealed blob on its way up: segments in, blocks staged in parallel, committed create-only.

Memory is bounded: when `in_flight` blocks are under way, `write` waits for the oldest. Nothing of
the blob is visible before `commit`, and after a crash nothing ever is.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from shared.repository.blob_store import BlobInfo, BlobName, BlobStore
from worker.pipeline.block_plan import Block, BlockCutter


@dataclass(frozen=True, slots=True)
class UploadThreads:
    """`hashing` has one thread, so that the parts of a digest come in order."""

    transfer: Executor
    hashing: Executor
    in_flight: int


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A block that is being sent, and added to the digest of the stored bytes."""

    staged: Future[None]
    hashed: Future[None]

    def finish(self) -> None:
        self.hashed.result()
        self.staged.result()

    def cancel(self) -> None:
        self.hashed.cancel()
        self.staged.cancel()

    def settle(self) -> None:
        for future in (self.hashed, self.staged):
            if not future.cancelled():
                future.exception()


class BlockUpload:
    """Not for use by several threads; it uses executors for transfers and for the digest."""

    def __init__(
        self, store: BlobStore, name: BlobName, writer: str, threads: UploadThreads
    ) -> None:
        """`writer` is unique to this attempt, so that two writers' blocks never mix."""
        self.name = name
        self.size = 0
        self._store = store
        self._cutter = BlockCutter(writer)
        self._threads = threads
        self._under_way: deque[_UnderWay] = deque()
        self._hash = hashlib.sha256()

    def write(self, segment: bytes) -> None:
        """Raises what an earlier block's transfer raised."""
        self.size += len(segment)
        self._stage(self._cutter.feed(segment))

    def commit(self) -> BlobInfo:
        """Make the blob appear. Raises BlobAlreadyExists when another writer has the name."""
        self._stage(self._cutter.finish())
        while self._under_way:
            self._under_way.popleft().finish()
        return self._store.commit_blocks(self.name, self._cutter.ids, size=self.size)

    def abandon(self) -> None:
        """End the transfers; staged blocks are litter that Azure drops after a week."""
        for block in self._under_way:
            block.cancel()
        for block in self._under_way:
            block.settle()
        self._under_way.clear()

    @property
    def sha256(self) -> str:
        """Of the stored bytes, in hex; complete after `commit`."""
        return self._hash.hexdigest()

    def _stage(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            if len(self._under_way) >= self._threads.in_flight:
                self._under_way.popleft().finish()
            hashed = self._threads.hashing.submit(self._hash.update, block.data)
            staged = self._threads.transfer.submit(
                self._store.stage_block, self.name, block.id, block.data
            )
            self._under_way.append(_UnderWay(staged, hashed))
