"""A copy that is only read: every write is refused, and listings end at a time."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.errors import BlobNotFound
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.read_only_store import ReadOnlyStore, StoreReadOnly

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAME = BlobName("full", "demo/label/index")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobStore:
    made = DirectoryBlobStore(tmp_path)
    made.create_container("full")
    return made


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.create(NAME, b"content", metadata={"a": "b"}),
        lambda store: store.stage_block(NAME, "0001", b"content"),
        lambda store: store.commit_blocks(NAME, ["0001"], size=7),
        lambda store: store.delete(NAME),
    ],
)
def test_a_write_through_a_copy_is_refused_and_changes_nothing(
    store: DirectoryBlobStore, write: Callable[[BlobStore], object]
) -> None:
    with pytest.raises(StoreReadOnly, match="full/demo/label/index is in a copy"):
        write(ReadOnlyStore(store))
    with pytest.raises(BlobNotFound):
        store.head(NAME)


def test_what_is_read_is_what_is_there(store: DirectoryBlobStore) -> None:
    made = store.create(NAME, b"content")
    copy = ReadOnlyStore(store)
    assert copy.head(NAME) == made
    assert copy.read(NAME, limit=10) == b"content"
    assert copy.read_range(NAME, 1, 3) == b"ont"
    assert list(copy.list("full", "demo/")) == [made]
    assert list(copy.list("full", start="demo/m")) == []
    assert copy.list_folder("full", "demo/") == ["label/"]


def test_listings_as_of_a_time_hold_what_was_written_before(
    store: DirectoryBlobStore, tmp_path: Path
) -> None:
    for minute in range(4):
        name = BlobName("full", f"demo/{minute}")
        store.create(name, b"")
        at = (NOON + timedelta(minutes=minute)).timestamp()
        os.utime(tmp_path / "full" / name.path, (at, at))
    copy = ReadOnlyStore(store, NOON + timedelta(minutes=2))
    assert [blob.name.path for blob in copy.list("full")] == ["demo/0", "demo/1"]
    assert copy.read(BlobName("full", "demo/3"), limit=1) == b""
