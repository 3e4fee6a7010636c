"""What every blob store promises, asked of each of them: a directory, Azurite, and memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.azurite import EmulatedAccount
from shared.azure_storage.patience import RetryBudget
from shared.errors import (
    BlobAlreadyExists,
    BlobNotFound,
    BlockListInvalid,
    ContainerNotFound,
    Corrupt,
    PgkeepError,
)
from shared.repository import azure_blob_store
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.blob_store import BlobInfo, BlobName, BlobStore
from shared.repository.directory_blob_store import BlobNameInvalid, DirectoryBlobStore
from tests.harness.memory_blob_store import MemoryBlobStore

IDS = ["w1-00000", "w1-00001", "w1-00002"]
BLOCKS = [b"a" * 1000, b"b" * 2000, b"c" * 17]
WHOLE = b"".join(BLOCKS)


@pytest.fixture(params=["directory", "azurite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "memory":
        yield MemoryBlobStore(("full", "state"))
        return
    if request.param == "directory":
        directory = DirectoryBlobStore(tmp_path / "repository")
        for container in ("full", "state"):
            directory.create_container(container)
        yield directory
        return
    account: EmulatedAccount = request.getfixturevalue("azurite_account")
    azure = open_blob_store(
        account.blob_url, account.credential, retry=RetryBudget(total_s=5, first_pause_s=0.05)
    )
    yield azure
    azure.close()


def blob(path: str) -> BlobName:
    return BlobName("full", path)


def stage_all(store: BlobStore, name: BlobName, ids: Sequence[str] = IDS) -> None:
    for block_id, data in zip(ids, BLOCKS, strict=True):
        store.stage_block(name, block_id, data)


def test_a_created_blob_reads_back_and_says_its_size_and_time(store: BlobStore) -> None:
    info = store.create(blob("prod/one"), b"content")
    assert store.read(info.name, limit=7) == b"content"
    assert store.head(info.name) == info
    assert (info.name, info.size) == (blob("prod/one"), 7)
    assert abs((datetime.now(UTC) - info.modified).total_seconds()) < 60


def test_creating_the_same_bytes_again_succeeds_and_changes_nothing(store: BlobStore) -> None:
    first = store.create(blob("prod/one"), b"content")
    assert store.create(blob("prod/one"), b"content") == first


TOLD = {"kid": "k7", "sha256": "0" * 64, "points": "a%20b@0/10," * 180, "x_1": "'\"<&=;~"}


def test_what_a_blob_was_created_with_is_told_by_head_and_list(store: BlobStore) -> None:
    told = store.create(blob("a/told"), b"content", metadata=TOLD)
    mute = store.create(blob("a/mute"), b"content")
    assert (told.metadata, mute.metadata) == (TOLD, {})
    assert store.head(told.name) == told
    assert store.head(mute.name) == mute
    assert list(store.list("full", "a/")) == [mute, told]


def test_metadata_stays_what_it_was_when_the_blob_was_created(store: BlobStore) -> None:
    first = store.create(blob("told"), b"content", metadata=TOLD)
    assert store.create(blob("told"), b"content", metadata={"kid": "another"}) == first
    assert store.create(blob("told"), b"content") == first
    with pytest.raises(BlobAlreadyExists):
        store.create(blob("told"), b"another", metadata={"kid": "another"})
    assert store.head(blob("told")) == first
    store.delete(blob("told"))
    assert store.create(blob("told"), b"content").metadata == {}
    assert store.head(blob("told")).metadata == {}


def test_a_blob_never_appears_without_its_metadata(store: BlobStore) -> None:
    names = [blob(f"told/{number:02d}") for number in range(20)]
    done = Event()

    def watch() -> list[Mapping[str, str]]:
        seen: list[Mapping[str, str]] = []
        while not done.is_set():
            seen += [info.metadata for info in store.list("full", "told/")]
        return seen

    def attempt(number: int) -> None:
        store.create(names[number % 20], b"same", metadata={"writer": str(number)})

    with ThreadPoolExecutor(5) as threads:
        watching = threads.submit(watch)
        try:
            list(threads.map(attempt, range(80)))
        finally:
            done.set()
    seen = [*watching.result(), *(store.head(name).metadata for name in names)]
    assert all(set(found) == {"writer"} for found in seen)


@pytest.mark.parametrize("other", [b"another", b"longer content", b""])
def test_creating_other_bytes_under_a_taken_name_is_refused(store: BlobStore, other: bytes) -> None:
    store.create(blob("prod/one"), b"content")
    with pytest.raises(BlobAlreadyExists, match="full/prod/one"):
        store.create(blob("prod/one"), other)
    assert store.read(blob("prod/one"), limit=100) == b"content"


def test_an_empty_blob_is_a_blob(store: BlobStore) -> None:
    assert store.create(blob("empty"), b"").size == 0
    assert store.read(blob("empty"), limit=0) == b""
    assert store.read_range(blob("empty"), 0, 0) == b""


def test_of_many_concurrent_creators_exactly_one_wins(store: BlobStore) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]

    def attempt(data: bytes) -> bool:
        return succeeds(lambda: store.create(blob("contested"), data), BlobAlreadyExists)

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(attempt, contents))
    assert won.count(True) == 1
    assert store.read(blob("contested"), limit=50_000) == contents[won.index(True)]


def test_staged_blocks_are_invisible_until_the_commit_and_appear_at_once(store: BlobStore) -> None:
    name = blob("prod/volume")
    stage_all(store, name)
    assert list(store.list("full")) == []
    with pytest.raises(BlobNotFound):
        store.head(name)
    with pytest.raises(BlobNotFound):
        store.read_range(name, 0, 1)
    info = store.commit_blocks(name, IDS, size=len(WHOLE))
    assert info.size == len(WHOLE)
    assert store.read(name, limit=len(WHOLE)) == WHOLE
    assert list(store.list("full")) == [info]


def test_blocks_are_joined_in_the_order_of_the_commit(store: BlobStore) -> None:
    stage_all(store, blob("v"))
    store.commit_blocks(blob("v"), IDS[::-1], size=len(WHOLE))
    assert store.read(blob("v"), limit=len(WHOLE)) == b"".join(BLOCKS[::-1])


def test_staging_a_block_again_replaces_it(store: BlobStore) -> None:
    stage_all(store, blob("v"))
    stage_all(store, blob("v"))
    store.stage_block(blob("v"), IDS[0], b"new")
    store.commit_blocks(blob("v"), IDS[:1], size=3)
    assert store.read(blob("v"), limit=3) == b"new"


def test_a_repeated_commit_of_the_same_blocks_succeeds(store: BlobStore) -> None:
    stage_all(store, blob("v"))
    first = store.commit_blocks(blob("v"), IDS, size=len(WHOLE))
    assert store.commit_blocks(blob("v"), IDS, size=len(WHOLE)) == first


def test_a_commit_over_somebody_elses_blob_is_refused(store: BlobStore) -> None:
    theirs = [block_id.replace("w1", "w2") for block_id in IDS]
    stage_all(store, blob("v"), theirs)
    store.commit_blocks(blob("v"), theirs, size=len(WHOLE))
    stage_all(store, blob("v"))
    with pytest.raises(BlobAlreadyExists, match="full/v"):
        store.commit_blocks(blob("v"), IDS, size=len(WHOLE))


def test_a_commit_over_a_blob_made_by_create_is_refused(store: BlobStore) -> None:
    store.create(blob("v"), WHOLE)
    stage_all(store, blob("v"))
    with pytest.raises(BlobAlreadyExists):
        store.commit_blocks(blob("v"), IDS, size=len(WHOLE))


def test_of_concurrent_committers_exactly_one_wins(store: BlobStore) -> None:
    writers = [[f"w{writer}-{number:05d}" for number in range(3)] for writer in range(4)]
    for ids in writers:
        stage_all(store, blob("v"), ids)

    def attempt(ids: list[str]) -> bool:
        return succeeds(
            lambda: store.commit_blocks(blob("v"), ids, size=len(WHOLE)), BlobAlreadyExists
        )

    with ThreadPoolExecutor(4) as threads:
        won = list(threads.map(attempt, writers))
    assert won.count(True) == 1
    assert store.read(blob("v"), limit=len(WHOLE)) == WHOLE


def test_a_commit_that_names_a_block_never_staged_makes_nothing_visible(store: BlobStore) -> None:
    stage_all(store, blob("v"))
    with pytest.raises(BlockListInvalid, match="full/v"):
        store.commit_blocks(blob("v"), [*IDS, "w1-00003"], size=len(WHOLE))
    assert list(store.list("full")) == []
    store.commit_blocks(blob("v"), IDS, size=len(WHOLE))


def test_a_commit_of_another_size_than_told_is_corrupt(store: BlobStore) -> None:
    stage_all(store, blob("v"))
    with pytest.raises(Corrupt, match=r"3017 bytes.* add up to 3018"):
        store.commit_blocks(blob("v"), IDS, size=len(WHOLE) + 1)


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, 3017), (999, 2), (3016, 1), (5, 0)])
def test_a_range_reads_exactly(store: BlobStore, offset: int, length: int) -> None:
    store.create(blob("v"), WHOLE)
    assert store.read_range(blob("v"), offset, length) == WHOLE[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(0, 3018), (3016, 2), (3017, 1), (9999, 1)])
def test_a_range_beyond_the_end_is_corrupt(store: BlobStore, offset: int, length: int) -> None:
    store.create(blob("v"), WHOLE)
    with pytest.raises(Corrupt, match="full/v"):
        store.read_range(blob("v"), offset, length)


def test_a_blob_larger_than_the_limit_is_not_read(store: BlobStore) -> None:
    store.create(blob("v"), WHOLE)
    with pytest.raises(Corrupt, match="3017 bytes, more than the 3016"):
        store.read(blob("v"), limit=3016)


OPERATIONS: dict[str, Callable[[BlobStore, BlobName], object]] = {
    "head": lambda store, name: store.head(name),
    "read": lambda store, name: store.read(name, limit=1),
    "read_range": lambda store, name: store.read_range(name, 0, 1),
    "delete": lambda store, name: store.delete(name),
    "create": lambda store, name: store.create(name, b"x"),
    "stage_block": lambda store, name: store.stage_block(name, "w1-00000", b"x"),
    "commit_blocks": lambda store, name: store.commit_blocks(name, ["w1-00000"], size=1),
    "list": lambda store, name: list(store.list(name.container)),
}


@pytest.mark.parametrize("operation", ["head", "read", "read_range", "delete"])
def test_what_needs_a_blob_says_that_it_does_not_exist(store: BlobStore, operation: str) -> None:
    store.create(blob("prod/there"), b"x")
    for path in ("absent", "prod/absent", "prod", "prod/there/below"):
        with pytest.raises(BlobNotFound, match=f"full/{path}"):
            OPERATIONS[operation](store, blob(path))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_container_is_told_from_a_missing_blob(store: BlobStore, operation: str) -> None:
    with pytest.raises(ContainerNotFound, match="nowhere"):
        OPERATIONS[operation](store, BlobName("nowhere", "path"))


def test_a_deleted_blob_is_gone_and_its_name_free_again(store: BlobStore) -> None:
    stage_all(store, blob("v"))
    store.commit_blocks(blob("v"), IDS, size=len(WHOLE))
    store.delete(blob("v"))
    with pytest.raises(BlobNotFound):
        store.head(blob("v"))
    store.create(blob("v"), b"other")
    with pytest.raises(BlobAlreadyExists):
        store.commit_blocks(blob("v"), IDS, size=len(WHOLE))


def test_1200_blobs_are_listed_in_order_of_path_over_several_pages(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_blob_store, "_PAGE", 500)
    paths = [f"{c}{n // 10:02d}{sign}{n % 10}" for n in range(300) for c in "ab" for sign in "/-"]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda path: store.create(blob(path), b"1"), paths))
    assert [info.name.path for info in store.list("full")] == sorted(paths)
    assert [info.name.path for info in store.list("full", "b0")] == sorted(
        path for path in paths if path.startswith("b0")
    )
    assert list(store.list("full", "c")) == []
    assert list(store.list("state")) == []


@pytest.mark.parametrize(
    "path",
    [
        "prod/20261122T030000Z-F-ab2c/base.pgdata.0000",
        "prod/20261122T030000Z-F-ab2c/base.4294967295.123456",
        "prod/20261122T030000Z-I-ab2c/backup_manifest",
        "p--2/keys/k1.rewrap-12.json",
        "prod/0000000A/0000000A000000FF000000FE.00000028.backup",
        "dump/täglich +%41 #?&=;~'()/ä b",
    ],
)
def test_every_name_that_layout_or_a_database_can_give_round_trips(
    store: BlobStore, path: str
) -> None:
    store.stage_block(blob(path), IDS[0], b"x")
    info = store.commit_blocks(blob(path), IDS[:1], size=1)
    assert [found.name.path for found in store.list("full", path[:-1])] == [path]
    assert store.read(info.name, limit=1) == b"x"
    store.delete(info.name)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", ".staged/x"])
def test_a_directory_refuses_names_that_lead_astray(tmp_path: Path, path: str) -> None:
    directory = DirectoryBlobStore(tmp_path)
    directory.create_container("full")
    with pytest.raises(BlobNameInvalid):
        directory.create(blob(path), b"x")
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]


def test_a_directory_keeps_no_litter_and_lets_nobody_else_read(tmp_path: Path) -> None:
    directory = DirectoryBlobStore(tmp_path)
    directory.create_container("full")
    stage_all(directory, blob("prod/v"))
    directory.commit_blocks(blob("prod/v"), IDS, size=len(WHOLE))
    with pytest.raises(BlobAlreadyExists):
        directory.create(blob("prod/v"), b"other")
    files = [found for found in (tmp_path / "full").rglob("*") if found.is_file()]
    assert [found.name for found in files if "commit-" not in found.name] == ["v"]
    assert (tmp_path / "full/prod/v").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "full/prod").stat().st_mode & 0o777 == 0o700


def test_a_directory_keeps_the_metadata_of_what_it_holds_and_no_other(tmp_path: Path) -> None:
    directory = DirectoryBlobStore(tmp_path)
    directory.create_container("full")
    directory.create(blob("told"), b"content", metadata=TOLD)
    directory.create(blob("told"), b"content", metadata=TOLD)
    with pytest.raises(BlobAlreadyExists):
        directory.create(blob("told"), b"other", metadata=TOLD)
    (record,) = (tmp_path / "full/.metadata").iterdir()
    assert "k7" in record.read_text("utf-8")
    directory.delete(blob("told"))
    assert list((tmp_path / "full/.metadata").iterdir()) == []


def test_a_directory_does_not_follow_a_planted_link(tmp_path: Path) -> None:
    directory = DirectoryBlobStore(tmp_path)
    directory.create_container("full")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "full/planted").symlink_to(tmp_path / "secret")
    assert list(directory.list("full")) == []
    for operation in ("head", "read", "read_range", "create", "delete"):
        with pytest.raises(PgkeepError):
            OPERATIONS[operation](directory, blob("planted"))
    assert (tmp_path / "secret").read_bytes() == b"secret"


class Model:
    """What a store does, with three dictionaries."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.lists: dict[str, list[str]] = {}

    def has_blocks_and_whole(self, verb: str, path: str) -> bool:
        """Uncommitted blocks beside a whole blob: useless, not promised, and stores differ."""
        return path in (self.blobs if verb == "stage" else self.blocks)

    def create(self, path: str, data: bytes) -> bytes:
        if self.blobs.setdefault(path, data) != data:
            raise BlobAlreadyExists(path)
        return data

    def stage(self, path: str, block_id: str, data: bytes) -> None:
        self.blocks.setdefault(path, {})[block_id] = data

    def commit(self, path: str, ids: list[str]) -> bytes:
        if path not in self.blobs:
            staged = self.blocks.get(path, {})
            if not set(ids) <= set(staged):
                raise BlockListInvalid(path)
            del self.blocks[path]
            self.blobs[path] = b"".join(staged[block_id] for block_id in ids)
            self.lists[path] = ids
        elif self.lists.get(path) != ids:
            raise BlobAlreadyExists(path)
        return self.blobs[path]

    def delete(self, path: str) -> None:
        if self.blobs.pop(path, None) is None:
            raise BlobNotFound(path)
        self.lists.pop(path, None)


PATHS = st.sampled_from(["a", "b-", "b/c"])
BLOCK_IDS = st.sampled_from(["0", "1", "2"])
STEPS = st.one_of(
    st.tuples(st.just("create"), PATHS, st.binary(max_size=3)),
    st.tuples(st.just("stage"), PATHS, BLOCK_IDS, st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("commit"), PATHS, st.lists(BLOCK_IDS, min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("delete"), PATHS),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEPS, min_size=3, max_size=12))
def test_any_sequence_of_operations_ends_as_the_model_says(
    store: BlobStore, steps: list[tuple[Any, ...]]
) -> None:
    model = Model()
    below = f"{uuid4().hex}/"  # one example must not see the blobs of another
    for verb, path, *rest in steps:
        if verb != "commit" and model.has_blocks_and_whole(verb, path):
            continue
        expected = outcome(getattr(model, verb), path, *rest)
        assert outcome(apply, store, verb, blob(below + path), *rest) == expected
        listed = {info.name.path.removeprefix(below): info for info in store.list("full", below)}
        assert list(listed) == sorted(model.blobs)
        for known, data in model.blobs.items():
            assert store.read(listed[known].name, limit=len(data)) == data


def apply(store: BlobStore, verb: str, name: BlobName, *rest: Any) -> bytes | None:
    match verb, *rest:
        case "create", bytes(data):
            return content(store, store.create(name, data))
        case "stage", str(block_id), bytes(data):
            store.stage_block(name, block_id, data)
        case "commit", [*ids]:
            return commit_of_any_size(store, name, ids)
        case "delete", *_:
            store.delete(name)
    return None


def commit_of_any_size(store: BlobStore, name: BlobName, ids: list[str]) -> bytes:
    """The steps do not tell the size: commit, and when it was wrong, once more."""
    try:
        return content(store, store.commit_blocks(name, ids, size=0))
    except Corrupt:
        size = store.head(name).size
        return content(store, store.commit_blocks(name, ids, size=size))


def content(store: BlobStore, info: BlobInfo) -> bytes:
    return store.read(info.name, limit=info.size)


def outcome(act: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return act(*arguments)
    except PgkeepError as error:
        return type(error)


def succeeds(act: Callable[[], object], refusal: type[PgkeepError]) -> bool:
    try:
        act()
    except refusal:
        return False
    return True
