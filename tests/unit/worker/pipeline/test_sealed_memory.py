"""Small sealed objects in memory: the same format as a backup's parts, and bounded when read."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import FrameCorrupt, SegmentCorrupt
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from worker.pipeline.sealed_download import open_blob, read_whole
from worker.pipeline.sealed_memory import opener_of, seal, unseal
from worker.pipeline.sealed_stream import SegmentSealer
from worker.pipeline.seekable_zstd import MAX_FRAME, compress_frame

KEY = (bytes(range(32)), b"aad")
MIB = 1 << 20


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def sealed(threads: ThreadPoolExecutor, plain: bytes) -> bytes:
    return seal(plain, KEY, random=token_bytes, compression=threads, level=1)


def opened(stored: bytes, limit: int = 64 * MIB) -> bytes:
    return unseal(stored, opener_of(stored, KEY, "wal/it"), limit=limit)


def sealed_stream(stream: bytes) -> bytes:
    sealer = SegmentSealer(*KEY, random=token_bytes)
    return b"".join((*sealer.feed(stream), sealer.finish()))


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(
        st.integers(0, 100),
        st.sampled_from([MAX_FRAME - 1, MAX_FRAME, MAX_FRAME + 1, 2 * MAX_FRAME + 5]),
    ),
    st.booleans(),
)
def test_what_was_sealed_opens_as_it_was(
    threads: ThreadPoolExecutor,
    size: int,
    compressible: bool,  # noqa: FBT001 - hypothesis gives arguments by position
) -> None:
    plain = bytes(size) if compressible else token_bytes(size)
    assert opened(sealed(threads, plain)) == plain


def test_a_backup_s_reader_opens_it_as_well(threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    plain = token_bytes(MAX_FRAME + MIB) + bytes(3 * MIB)
    stored = sealed(threads, plain)
    store = DirectoryBlobStore(tmp_path)
    store.create_container("wal")
    name = BlobName("wal", "it")
    store.create(name, stored)
    blob = open_blob(store, name, *KEY, len(stored))
    assert b"".join(read_whole(blob, threads, depth=2)) == plain
    assert blob.frame_table().plain_length == len(plain)


def test_another_key_s_object_is_noticed_at_once(threads: ThreadPoolExecutor) -> None:
    stored = sealed(threads, bytes(100))
    with pytest.raises(SegmentCorrupt, match="wal/it"):
        opener_of(stored, (KEY[0], b"another name"), "wal/it")


def test_r29_more_than_the_limit_is_not_decompressed(threads: ThreadPoolExecutor) -> None:
    stored = sealed(threads, bytes(9 * MIB))
    assert len(stored) < MIB // 100
    with pytest.raises(FrameCorrupt, match=f"more than {8 * MIB}"):
        opened(stored, limit=8 * MIB)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        bytes(16),
        compress_frame(b"no table"),
        b"\xff" * 40,
        bytes(4) + b"\xff\xff\xff\xff\0\xb1\xea\x92\x8f",
    ],
    ids=["empty", "zeros", "frame only", "ones", "a table larger than the stream"],
)
def test_what_holds_no_seek_table_is_refused(stream: bytes) -> None:
    with pytest.raises(FrameCorrupt):
        opened(sealed_stream(stream))
