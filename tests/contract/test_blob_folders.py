"""Listings that begin midway, and those of one folder, asked of each blob store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.azurite import EmulatedAccount
from shared.errors import ContainerNotFound
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.directory_blob_store import DirectoryBlobStore
from tests.harness.memory_blob_store import MemoryBlobStore

PATHS = sorted(
    [
        "main/00000001.history",
        "main/00000001/000000010000000000000001",
        "main/00000001/000000010000000000000001.00000000-00002000.partial",
        "main/00000001/000000010000000000000002",
        "main/00000002.history",
        "main/00000002/000000020000000000000002",
        "main/00000002/deeper/000000020000000000000002",
        "main-two/00000001/000000010000000000000001",
        "other",
    ]
)


@pytest.fixture(params=["directory", "azurite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "memory":
        yield filled(MemoryBlobStore(("wal", "state")))
        return
    if request.param == "directory":
        directory = DirectoryBlobStore(tmp_path / "repository")
        for container in ("wal", "state"):
            directory.create_container(container)
        yield filled(directory)
        return
    account: EmulatedAccount = request.getfixturevalue("azurite_account")
    azure = open_blob_store(account.blob_url, account.credential)
    yield filled(azure)
    azure.close()


def filled(store: BlobStore) -> BlobStore:
    for path in PATHS:
        store.create(BlobName("wal", path), b"log", metadata={"of": "x"})
    return store


@pytest.mark.parametrize("prefix", ["", "main/", "main/00000001/", "m", "absent"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    start=st.sampled_from([*PATHS, *(path + "0" for path in PATHS), "main/", "main/00000002/", "n"])
    | st.text("0/.amz", max_size=4),
    page=st.sampled_from([None, 1, 2, 9000]),
)
def test_a_listing_begins_at_any_name_in_pages_of_any_size(
    store: BlobStore, prefix: str, start: str, page: int | None
) -> None:
    expected = [path for path in PATHS if path.startswith(prefix) and path >= start]
    found = list(store.list("wal", prefix, start=start, page=page))
    assert [info.name.path for info in found] == expected
    assert all((info.size, info.metadata) == (3, {"of": "x"}) for info in found)


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("", ["main-two/", "main/", "other"]),
        ("main/", ["00000001.history", "00000001/", "00000002.history", "00000002/"]),
        ("main/00000002/", ["000000020000000000000002", "deeper/"]),
        ("absent/", []),
    ],
)
def test_a_folder_names_what_lies_directly_in_it(
    store: BlobStore, folder: str, names: list[str]
) -> None:
    assert list(store.list_folder("wal", folder)) == names


def test_an_empty_container_has_no_names_and_a_missing_one_is_told(store: BlobStore) -> None:
    assert list(store.list_folder("state")) == []
    with pytest.raises(ContainerNotFound, match="nowhere"):
        store.list_folder("nowhere")


def test_a_directory_names_no_hidden_file_and_no_link(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    store.create_container("wal")
    store.create(BlobName("wal", "main/1"), b"", metadata={"of": "x"})
    (tmp_path / "wal/link").symlink_to(tmp_path)
    assert list(store.list_folder("wal")) == ["main/"]
