"""Plain bytes into one sealed blob: frames compressed in parallel, sealed in order, uploaded.

Three kinds of threads share the work, all of it outside the GIL: compression, hashing of what
comes in and of what is stored, transfer. The caller's thread cuts frames and seals. At most
`frames_in_flight` frames and `blocks_in_flight` blocks are in memory, whatever the blob's size.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from shared.repository.blob_store import BlobName, BlobStore
from worker.pipeline.block_upload import BlockUpload, UploadThreads
from worker.pipeline.sealed_stream import SegmentSealer
from worker.pipeline.seekable_zstd import DEFAULT_LEVEL, FrameCutter, FrameTable, compress_frame


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a document says of a sealed blob. Sizes in bytes, digests in hex."""

    name: BlobName
    stored_size: int
    sha256: str
    plain_size: int
    plain_sha256: str
    frames: FrameTable


@dataclass(slots=True)
class TransferPools:
    """The threads of one backup; close it when the last blob is committed."""

    compression_threads: int = 2
    transfer_threads: int = 4
    level: int = DEFAULT_LEVEL
    compression: ThreadPoolExecutor = field(init=False)
    transfer: ThreadPoolExecutor = field(init=False)
    hashing: ThreadPoolExecutor = field(init=False)
    _stack: ExitStack = field(init=False, default_factory=ExitStack)

    def __enter__(self) -> Self:
        pool = partial(ThreadPoolExecutor, thread_name_prefix="pgkeep-pipeline")
        self.compression = self._stack.enter_context(pool(self.compression_threads))
        self.transfer = self._stack.enter_context(pool(self.transfer_threads))
        # One thread, so that updates of a hash happen in the order they were handed over.
        self.hashing = self._stack.enter_context(pool(1))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def frames_in_flight(self) -> int:
        return self.compression_threads + 2

    @property
    def blocks_in_flight(self) -> int:
        return self.transfer_threads


class SealedUpload:
    """One blob. `write` the plaintext, `commit`; or `abandon` and nothing was ever there."""

    def __init__(self, upload: BlockUpload, sealer: SegmentSealer, pools: TransferPools) -> None:
        self._upload = upload
        self._sealer = sealer
        self._pools = pools
        self._cutter = FrameCutter()
        self._frames = FrameTable()
        self._compressing: deque[tuple[Future[bytes], Future[None], int]] = deque()
        self._hash = hashlib.sha256()
        self.plain_size = 0

    def write(self, chunk: bytes | memoryview) -> None:
        """`chunk` must not change afterwards. Raises what compression or transfer raised."""
        self.plain_size += len(chunk)
        for frame in self._cutter.feed(chunk):
            self._submit(frame)

    def cut(self) -> None:
        """End the frame here, so that what follows can be read without what precedes."""
        for frame in self._cutter.cut():
            self._submit(frame)

    @property
    def held(self) -> int:
        """Bytes of the frame that is being filled."""
        return self._cutter.held

    def commit(self) -> StoredBlob:
        """Write the seek table, seal the last segment and make the blob appear."""
        self.cut()
        while self._compressing:
            self._seal_oldest()
        self._seal(self._frames.to_bytes())
        self._upload.write(self._sealer.finish())
        info = self._upload.commit()
        return StoredBlob(
            name=info.name,
            stored_size=self._upload.size,
            sha256=self._upload.sha256,
            plain_size=self.plain_size,
            plain_sha256=self._hash.hexdigest(),
            frames=self._frames,
        )

    def abandon(self) -> None:
        for compressed, hashed, _ in self._compressing:
            compressed.cancel()
            hashed.cancel()
        self._compressing.clear()
        self._upload.abandon()

    def _submit(self, frame: bytes) -> None:
        if len(self._compressing) >= self._pools.frames_in_flight:
            self._seal_oldest()
        compressed = self._pools.compression.submit(compress_frame, frame, self._pools.level)
        hashed = self._pools.hashing.submit(self._hash.update, frame)
        self._compressing.append((compressed, hashed, len(frame)))

    def _seal_oldest(self) -> None:
        compressed, hashed, plain_size = self._compressing.popleft()
        frame = compressed.result()
        hashed.result()
        self._frames.append(len(frame), plain_size)
        self._seal(frame)

    def _seal(self, data: bytes) -> None:
        for segment in self._sealer.feed(data):
            self._upload.write(segment)


def open_upload(
    store: BlobStore,
    name: BlobName,
    key: tuple[bytes, bytes],
    pools: TransferPools,
    random: Callable[[int], bytes],
) -> SealedUpload:
    """`key` is (data key, AAD). Block ids carry a random prefix: one attempt, one writer."""
    data_key, aad = key
    threads = UploadThreads(pools.transfer, pools.hashing, pools.blocks_in_flight)
    upload = BlockUpload(store, name, random(8).hex(), threads)
    return SealedUpload(upload, SegmentSealer(data_key, aad, random=random), pools)
