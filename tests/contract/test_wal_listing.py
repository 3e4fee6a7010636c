"""What the archive holds by its listings alone, and what it costs to know; with each blob store."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.azurite import EmulatedAccount
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.domain.wal_inventory import ArchivedWal, WalInventory
from shared.domain.wal_segment import (
    WalFileKind,
    WalFileName,
    WalObject,
    WalPiece,
    parse_wal_object,
    segment_name,
    segment_start,
)
from shared.errors import WalSegmentSizeInvalid
from shared.repository import layout
from shared.repository.azure_blob_store import AzureBlobStore, open_blob_store
from shared.repository.blob_store import BlobInfo, BlobName, BlobStore
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.wal_listing import ArchiveSnapshot, archived_wal, list_archive, refresh
from shared.repository.wal_metadata import WalMetadata
from tests.harness.worker_services import WatchedStore

MIB = 1 << 20
SIZE = 16 * MIB
MAIN = cluster_name("main")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
KID = "k" + "a" * 26


@dataclass
class CountingStore(WatchedStore):
    """Counts what listings give, and how many there are."""

    blobs: int = 0
    listings: int = 0
    pages: list[int | None] = field(default_factory=list)

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        self.listings += 1
        self.pages.append(page)
        for info in super().list(container, prefix, start=start, page=page):
            self.blobs += 1
            yield info

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        names = super().list_folder(container, folder)
        self.listings += 1
        self.blobs += len(names)
        return names


@pytest.fixture(params=["directory", "azurite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "directory":
        directory = DirectoryBlobStore(tmp_path / "repository")
        directory.create_container("wal")
        yield directory
        return
    account: EmulatedAccount = request.getfixturevalue("azurite_account")
    azure = open_blob_store(account.blob_url, account.credential)
    yield azure
    azure.close()


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryBlobStore:
    store = DirectoryBlobStore(tmp_path / "repository")
    store.create_container("wal")
    return store


def segment(number: int, timeline: int = 1, size: int = SIZE) -> WalFileName:
    return WalFileName.parse(segment_name(timeline, Lsn(number * size), size))


def piece(number: int, start: int, stop: int, timeline: int = 1) -> WalPiece:
    return WalPiece.of(segment(number, timeline), start, stop)


def put(store: BlobStore, *items: WalObject, size: int = SIZE) -> None:
    """As an honest writer: one commit in each 1000 bytes of log, at the second of its number."""
    for item in items:
        told = WalMetadata(KID, sha256(b"").hexdigest(), *contents(item, size))
        store.create(layout.wal_blob(MAIN, item), b"sealed", metadata=told.to_blob())


def contents(
    item: WalObject, size: int
) -> tuple[int, datetime | None, datetime | None, tuple[RestorePoint, ...]]:
    start, stop = extent(item, size)
    commits = range(start + -start % 1000, stop, 1000)
    if not commits:
        return stop - start, None, None, ()
    first, last = NOON + timedelta(seconds=commits[0]), NOON + timedelta(seconds=commits[-1])
    return stop - start, first, last, (RestorePoint(Lsn(commits[0]), "first", first),)


def extent(item: WalObject, size: int = SIZE) -> tuple[int, int]:
    if isinstance(item, WalPiece):
        begin = segment_start(item.name, size)
        return begin + item.start, begin + item.stop
    if item.kind is WalFileKind.HISTORY:
        return 0, 0
    return segment_start(item, size), segment_start(item, size) + size


def bounds(snapshot: ArchiveSnapshot, timeline: int = 1) -> list[tuple[int, int]]:
    return [(int(one.start), int(one.end)) for one in snapshot.inventory.of(timeline)]


def in_segments(snapshot: ArchiveSnapshot, timeline: int = 1) -> list[tuple[float, float]]:
    return [(start / SIZE, end / SIZE) for start, end in bounds(snapshot, timeline)]


def everything(store: BlobStore) -> WalInventory:
    """By the whole listing."""
    found = [archived_wal(info, SIZE) for info in store.list("wal", "main/")]
    return WalInventory().adding(item for item in found if item)


def facts(inventory: WalInventory) -> list[object]:
    return [
        (one.timeline, one.start, one.end, one.first_commit, one.last_commit)
        for one in inventory.ranges
    ]


@pytest.mark.parametrize("size", [MIB, 64 * MIB, 1024 * MIB])
def test_w15_a_segment_and_a_piece_of_any_size_are_found_where_they_lie(
    store: BlobStore, size: int
) -> None:
    number = (5 << 32) // size + 3
    whole = segment(number, 7, size)
    part = WalPiece.of(segment(number + 1, 7, size), 4096, size)
    put(store, whole, part, size=size)
    first, second = [archived_wal(info, size) for info in store.list("wal")]
    start = (5 << 32) + 3 * size
    assert first == ArchivedWal(
        7, Lsn(start), Lsn(start + size), *contents(whole, size)[1:], len(b"sealed")
    )
    assert second == ArchivedWal(
        7,
        Lsn(start + size + 4096),
        Lsn(start + 2 * size),
        *contents(part, size)[1:],
        len(b"sealed"),
    )
    assert refresh(store, MAIN, None).segment_size == size


@pytest.mark.parametrize(
    "name",
    [
        "0000000100000000000000A7.partial",  # W06: PostgreSQL's own, at the end of a timeline
        "0000000100000000000000A7.00000028.backup",
        "00000002.history",
    ],
)
def test_w06_what_is_not_to_be_replayed_counts_as_no_log(store: BlobStore, name: str) -> None:
    put(store, segment(0xA6), parse_wal_object(name))
    assert in_segments(refresh(store, MAIN, None)) == [(0xA6, 0xA7)]


@pytest.mark.parametrize(
    "path",
    [
        "main/00000001/notes.txt",
        "main/00000001/000000020000000000000001",
        "main/00000001/000000010000000000000100",  # no 257th segment of 16 MiB in 4 GiB
        "main/00000001/000000010000000000000002.00000000-01000001.partial",
        "main/junk",
        "main/0000000G/000000010000000000000001",
    ],
)
def test_junk_is_logged_and_hides_nothing(
    store: BlobStore, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.create(BlobName("wal", path), b"junk")
    put(store, segment(1), segment(2))
    with caplog.at_level("INFO", "pgkeep"):
        assert in_segments(refresh(store, MAIN, None)) == [(1, 3)]
    assert {record.getMessage() for record in caplog.records} == {"blob-foreign"}


def test_metadata_that_contradicts_the_name_is_junk_and_lost_metadata_is_not(
    directory: DirectoryBlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    lies = WalMetadata(KID, sha256(b"").hexdigest(), SIZE // 2)
    directory.create(layout.wal_blob(MAIN, segment(1)), b"x", metadata=lies.to_blob())
    directory.create(layout.wal_blob(MAIN, segment(2)), b"x")
    put(directory, segment(3))
    with caplog.at_level("INFO", "pgkeep"):
        found = refresh(directory, MAIN, None, SIZE)
    assert in_segments(found) == [(2, 4)]
    assert found.ranges[0].first_commit == contents(segment(3), SIZE)[1]
    assert [record.getMessage() for record in caplog.records] == ["wal-size-differs"]


def test_without_a_whole_segment_nobody_knows_where_a_piece_lies(store: BlobStore) -> None:
    """Nor does a piece tell that has the size which a segment might have."""
    put(store, piece(1, 0, MIB), piece(1, MIB, MIB + 50))
    unknown = refresh(store, MAIN, None)
    assert (unknown.segment_size, unknown.ranges, unknown.turn) == (None, (), 1)
    told = refresh(store, MAIN, unknown, SIZE)
    assert bounds(told) == [(SIZE, SIZE + MIB + 50)]
    put(store, segment(1))
    found = refresh(store, MAIN, unknown)
    assert (found.segment_size, in_segments(found)) == (SIZE, [(1, 2)])


def test_a_segment_size_that_cannot_be_is_refused(directory: DirectoryBlobStore) -> None:
    put(directory, segment(1))
    with pytest.raises(WalSegmentSizeInvalid, match="12345 bytes"):
        refresh(directory, MAIN, None, 12345)


def test_a_snapshot_survives_json_and_one_of_another_segment_size_is_dropped(
    directory: DirectoryBlobStore,
) -> None:
    put(directory, segment(1), piece(2, 0, 5000))
    first = refresh(directory, MAIN, None)
    assert ArchiveSnapshot.model_validate_json(first.model_dump_json()) == first
    other = ArchiveSnapshot(segment_size=MIB, ranges=first.ranges, turn=4)
    assert refresh(directory, MAIN, other, SIZE) == first


def test_w03_w04_a_gap_is_seen_and_so_is_that_it_heals(store: BlobStore) -> None:
    put(store, segment(5), segment(7), segment(8))
    split = refresh(store, MAIN, None)
    assert in_segments(split) == [(5, 6), (7, 9)]
    put(store, segment(6), segment(9))
    assert in_segments(refresh(store, MAIN, split)) == [(5, 10)]


def test_w19_segments_that_overtake_are_counted_when_the_ones_before_come(store: BlobStore) -> None:
    """Also the very first of an archive."""
    put(store, segment(0xA8))
    overtaken = refresh(store, MAIN, None)
    put(store, segment(0xAA), segment(0xA7))
    ahead = refresh(store, MAIN, overtaken)
    through = ahead.inventory.through(1)
    assert in_segments(ahead) == [(0xA7, 0xA9), (0xAA, 0xAB)]
    assert through is not None
    assert through.end == Lsn(0xA9 * SIZE)
    put(store, segment(0xA9))
    assert in_segments(refresh(store, MAIN, ahead)) == [(0xA7, 0xAB)]


def test_a_receiver_that_starts_again_is_followed(store: BlobStore) -> None:
    """Its pieces repeat the segment from its start, and one that leads on begins in what is known:
    it is found as soon as the next follows, or by itself within some looks.
    """
    put(store, segment(1), *(piece(2, at, at + 10) for at in range(0, 500, 10)))
    snapshot = refresh(store, MAIN, None)
    put(store, piece(2, 0, 405), piece(2, 405, 700))
    alone = snapshot
    for _ in range(9):
        alone = refresh(store, MAIN, alone)
    put(store, piece(2, 700, 900))
    followed = refresh(store, MAIN, snapshot)
    assert bounds(alone) == [(SIZE, 2 * SIZE + 700)]
    assert bounds(followed) == [(SIZE, 2 * SIZE + 900)]
    put(store, segment(2))
    assert in_segments(refresh(store, MAIN, followed)) == [(1, 3)]


def test_a_new_timeline_is_found_and_the_old_one_still_watched(store: BlobStore) -> None:
    put(store, segment(1), piece(2, 0, 700))
    before = refresh(store, MAIN, None)
    put(store, WalFileName(WalFileKind.HISTORY, 2), segment(2, 2), piece(3, 0, 100, 2))
    put(store, piece(2, 700, 900))
    after = refresh(store, MAIN, before)
    assert bounds(after, 1) == [(SIZE, 2 * SIZE + 900)]
    assert bounds(after, 2) == [(2 * SIZE, 3 * SIZE + 100)]


def test_the_cluster_whose_name_begins_alike_is_another(store: BlobStore) -> None:
    put(store, segment(1))
    theirs = cluster_name("main-two")
    store.create(layout.wal_blob(theirs, segment(2, 3)), b"x")
    assert refresh(store, MAIN, None).inventory.timelines == (1,)
    assert refresh(store, cluster_name("none"), None) == ArchiveSnapshot(turn=1)


STRETCHES = st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 10), st.integers(1, 2))


def object_of(drawn: tuple[int, int, int, int]) -> WalObject:
    number, start, length, timeline = drawn
    tenth = SIZE // 10
    stop = min(start + length, 10)
    return (
        segment(number, timeline)
        if length == 10
        else piece(number, start * tenth, SIZE if stop == 10 else stop * tenth, timeline)
    )


@settings(max_examples=60, deadline=None)
@given(portions=st.lists(st.lists(STRETCHES, max_size=4), min_size=1, max_size=6))
def test_whatever_comes_in_whatever_order_is_known_within_some_looks(
    tmp_path_factory: pytest.TempPathFactory, portions: list[list[tuple[int, int, int, int]]]
) -> None:
    store = DirectoryBlobStore(tmp_path_factory.mktemp("archive"))
    store.create_container("wal")
    snapshot: ArchiveSnapshot | None = None
    for portion in portions:
        put(store, *{object_of(drawn) for drawn in portion})
        snapshot = refresh(store, MAIN, snapshot, SIZE)
        truth = everything(store)
        assert truth.adding(stretches_of(snapshot)).gaps(1) == truth.gaps(1), "claims too much"
    for _ in range(8):
        snapshot = refresh(store, MAIN, snapshot, SIZE)
    assert snapshot is not None
    assert facts(snapshot.inventory) == facts(everything(store))


def stretches_of(snapshot: ArchiveSnapshot) -> Iterable[ArchivedWal]:
    return (ArchivedWal(one.timeline, one.start, one.end) for one in snapshot.ranges)


def fill(root: Path, numbers: Iterable[int], size: int) -> None:
    """Many segments at once, past the store: without metadata, and without waiting for the disk."""
    folder = root / "wal/main/00000001"
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / str(segment(number, 1, size))).write_bytes(b"")


def test_ten_thousand_known_segments_are_not_listed_again(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    fill(tmp_path, range(10_000), MIB)
    known = refresh(store, MAIN, None, MIB)
    put(store, *(segment(number, 1, MIB) for number in range(10_000, 10_005)), size=MIB)
    for turn in range(8):
        counted = CountingStore(store)
        found = refresh(counted, MAIN, known.model_copy(update={"turn": turn}))
        assert [(one.start, one.end) for one in found.ranges] == [(0, 10_005 * MIB)]
        assert counted.blobs <= 8
        assert counted.listings <= 3


def test_what_a_refresh_costs_does_not_grow_with_the_archive(
    store: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests and all that they fetch; holes, and a segment in many pieces, included."""
    kept = [number for number in range(150) if number % 10 != 9]
    put(store, *map(segment, kept), *(piece(150, at, at + 1) for at in range(150)))
    known = refresh(store, MAIN, None)
    known = refresh(store, MAIN, known)
    assert len(known.inventory.gaps(1)) == 15
    put(store, piece(150, 150, 160), segment(149))
    counted = CountingStore(store)
    with caplog.at_level("INFO", "azure.core.pipeline.policies.http_logging_policy"):
        found = refresh(counted, MAIN, known)
    assert len(found.inventory.gaps(1)) == 14
    assert found.ranges[-1].end == Lsn(150 * SIZE + 160)
    assert counted.blobs < 70
    requests = [one for one in caplog.messages if one.startswith("Request URL")]
    over_http = isinstance(store, AzureBlobStore)
    assert len(requests) == (counted.listings if over_http else 0), "one page for each listing"
    assert counted.pages.count(None) == 1, "a full page only behind the end"
    assert sum(page or 0 for page in counted.pages) < 400


def test_all_holes_are_looked_at_in_their_turn(directory: DirectoryBlobStore) -> None:
    put(directory, *(segment(number) for number in range(0, 80, 2)))
    snapshot = refresh(directory, MAIN, None)
    put(directory, segment(1), segment(31), segment(77))
    healed = [number for number in (1, 31, 77) if has(refresh(directory, MAIN, snapshot), number)]
    assert 77 in healed
    for _ in range(5):
        counted = CountingStore(directory)
        snapshot = refresh(counted, MAIN, snapshot)
        assert counted.listings <= 16 + len(["folder", "end"]), "39 holes, 16 at a time"
    assert all(has(snapshot, number) for number in (1, 31, 77))


def has(snapshot: ArchiveSnapshot, number: int) -> bool:
    return snapshot.inventory.range_at(1, Lsn(number * SIZE + 1)) is not None


HISTORIES: dict[int, bytes] = {2: b"1\t0/3000100\tno recovery target specified\n", 3: b"nonsense"}


def archive_of_three_timelines(store: BlobStore) -> None:
    put(store, *(segment(number) for number in range(40)))
    put(store, *(segment(number, 2) for number in range(3, 9)), piece(9, 0, 77, 2))
    put(store, *(WalFileName(WalFileKind.HISTORY, number) for number in (2, 3)), segment(4, 3))


def test_a_restore_lists_what_can_matter_from_its_backup_on(
    store: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    archive_of_three_timelines(store)
    counted = CountingStore(store)
    archive = list_archive(
        counted,
        MAIN,
        segment_size=SIZE,
        since=(1, Lsn(36 * SIZE + 99)),
        read_history=HISTORIES.__getitem__,
    )
    assert [item.start // SIZE for item in archive.items] == [36, 37, 38, 39]
    assert counted.blobs == 4 + len(["1/", "2/", "3/", "2.history", "3.history"])
    assert list(archive.histories) == [1, 2]
    assert archive.histories[2].end_of(1) == Lsn(0x3000100)
    assert [record.__dict__["fields"] for record in caplog.records] == [
        {"timeline": 3, "code": "history-invalid"}
    ]


def test_a_restore_leaves_out_older_timelines_and_keeps_every_piece(store: BlobStore) -> None:
    archive_of_three_timelines(store)
    archive = list_archive(
        store,
        MAIN,
        segment_size=SIZE,
        since=(2, Lsn(8 * SIZE)),
        read_history=HISTORIES.__getitem__,
    )
    assert [(item.timeline, item.start, item.end) for item in archive.items] == [
        (2, 8 * SIZE, 9 * SIZE),
        (2, 9 * SIZE, 9 * SIZE + 77),
    ]
    assert list(archive.histories) == [2]
    newest = list_archive(
        store,
        MAIN,
        segment_size=SIZE,
        since=(3, Lsn(0)),
        read_history=lambda number: HISTORIES[{3: 2}[number]],
    )
    assert [item.start // SIZE for item in newest.items] == [4]
    assert list(newest.histories) == [3]


def test_an_empty_archive_has_nothing_to_plan_with(store: BlobStore) -> None:
    read: Callable[[int], bytes] = HISTORIES.__getitem__
    archive = list_archive(store, MAIN, segment_size=SIZE, since=(1, Lsn(0)), read_history=read)
    assert (archive.items, list(archive.histories)) == ((), [1])
