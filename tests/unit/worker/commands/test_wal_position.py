"""Where a receiver goes on: at the first hole that a crash can have left, on the server's line."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.timeline import Branch, TimelineHistory
from shared.domain.wal_segment import WalFileName, WalPiece, segment_name
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from tests.harness.worker_services import WatchedStore
from worker.commands.wal_position import (
    Line,
    Position,
    ServerView,
    find_position,
    position_after,
)

MIB = 1 << 20
CLUSTER = cluster_name("main")


class Archive:
    """Segments by number, of 1 MiB each; empty blobs, as only names and metadata count."""

    def __init__(self, folder: Path) -> None:
        self.store = WatchedStore(DirectoryBlobStore(folder))
        for container in layout.CONTAINERS:
            (folder / container).mkdir(parents=True, exist_ok=True)

    def add(self, timeline: int, numbers: Iterable[int]) -> "Archive":
        for number in numbers:
            item = WalFileName.parse(segment_name(timeline, Lsn(number * MIB), MIB))
            self.store.create(layout.wal_blob(CLUSTER, item), b"")
        return self

    def add_piece(self, timeline: int, number: int, start: int, stop: int) -> "Archive":
        name = WalFileName.parse(segment_name(timeline, Lsn(number * MIB), MIB))
        self.store.create(layout.wal_blob(CLUSTER, WalPiece.of(name, start, stop)), b"")
        return self


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def line(*ancestors: tuple[int, float], timeline: int = 1) -> Line:
    """Ancestors leave their timeline at segment numbers, or within a segment."""
    branches = tuple(Branch(number, Lsn(switch * MIB)) for number, switch in ancestors)
    return Line(TimelineHistory(timeline, branches), MIB)


ONE = line()
TWO = line((1, 20.5), timeline=2)
THREE = line((1, 20.5), (2, 30), timeline=3)


def found(
    archive: Archive,
    *,
    on: Line = ONE,
    end: float,
    slot: float | None = None,
    lost: Position | None = None,
) -> tuple[int, float]:
    slot_lsn = None if slot is None else Lsn(slot * MIB)
    view = ServerView(on, Lsn(end * MIB), slot_lsn)
    position = find_position(archive.store, CLUSTER, view, lost)
    return position.timeline, position.lsn / MIB


def test_an_empty_archive_begins_where_the_slot_holds_wal_or_where_the_server_is(
    archive: Archive,
) -> None:
    assert found(archive, end=40.5, slot=38.2) == (1, 38)
    assert found(archive, end=40.5) == (1, 40)
    assert found(archive, on=TWO, end=40.5, slot=20.1) == (1, 20)
    assert found(archive, on=TWO, end=40.5, slot=21) == (2, 21)


def test_it_goes_on_behind_the_newest_segment(archive: Archive) -> None:
    archive.add(1, range(10, 25))
    assert found(archive, end=30, slot=25) == (1, 25)
    assert found(archive, end=30, slot=24.9) == (1, 25)
    assert found(archive, end=30) == (1, 25)


def test_it_goes_on_behind_a_newest_segment_that_is_far_behind_the_slot(archive: Archive) -> None:
    archive.add(1, [3, 4])
    assert found(archive, end=90_000, slot=80_000) == (1, 5)


@pytest.mark.parametrize("slot", [None, 12.7, 15.3, 18])
def test_a_hole_that_a_crash_left_is_filled_first(archive: Archive, slot: float | None) -> None:
    """W19: 13 was under way when 14 and 15 were durable."""
    archive.add(1, [10, 11, 12, 14, 15])
    assert found(archive, end=18, slot=slot) == (1, 13)


def test_a_segment_begins_again_however_much_of_it_is_there(archive: Archive) -> None:
    archive.add(1, [10, 11]).add_piece(1, 12, 0, 4096).add_piece(1, 12, 4096, 5000)
    assert found(archive, end=12.5, slot=12.001) == (1, 12)


def test_a_segment_that_its_pieces_cover_is_complete(archive: Archive) -> None:
    archive.add(1, [10]).add_piece(1, 11, 0, 4096).add_piece(1, 11, 4000, MIB)
    assert found(archive, end=12.5, slot=12) == (1, 12)


def test_wal_that_the_slot_holds_before_the_archives_first_is_fetched_first(
    archive: Archive,
) -> None:
    archive.add(1, [10, 11])
    assert found(archive, end=12.5, slot=8.5) == (1, 8)


def test_an_old_timeline_is_followed_to_its_end_before_the_next(archive: Archive) -> None:
    archive.add(1, range(10, 19))
    assert found(archive, on=TWO, end=25, slot=24) == (1, 19)
    archive.add(1, [19])
    assert found(archive, on=TWO, end=25, slot=24) == (1, 20)
    archive.add_piece(1, 20, 0, MIB // 2)
    assert found(archive, on=TWO, end=25, slot=24) == (1, 20), "it is sure that it is all of it"


def test_wal_beyond_the_point_where_the_servers_line_left_does_not_count(archive: Archive) -> None:
    """The old primary had written more when it died: that is no part of the server's history."""
    archive.add(1, range(10, 27))
    assert found(archive, on=TWO, end=25, slot=24) == (2, 20)
    archive.add(2, [20, 21])
    assert found(archive, on=TWO, end=25, slot=22) == (2, 22)


def test_timelines_between_the_archive_and_the_server_are_not_skipped(archive: Archive) -> None:
    archive.add(1, range(10, 27))
    assert found(archive, on=THREE, end=35, slot=34) == (2, 20)
    archive.add(2, range(20, 30))
    assert found(archive, on=THREE, end=35, slot=34) == (3, 30)
    archive.add(3, [30])
    assert found(archive, on=THREE, end=35, slot=34) == (3, 31)


def test_another_branch_in_the_archive_is_left_alone(archive: Archive) -> None:
    """W09: timeline 2 is of a promotion that the server knows nothing of."""
    archive.add(1, range(10, 19)).add(2, range(18, 40))
    assert found(archive, end=20, slot=19) == (1, 19)
    assert found(archive, on=line((1, 18.5), timeline=3), end=20, slot=19) == (3, 18)


def test_what_the_server_has_lost_is_not_asked_for_again(archive: Archive) -> None:
    """W03."""
    archive.add(1, [10, 11])
    lost = Position(1, Lsn(12 * MIB))
    assert found(archive, end=30, slot=28.5, lost=lost) == (1, 12), "nothing else is known"
    archive.add(1, [18, 19])
    assert found(archive, end=30.5, slot=20.1, lost=lost) == (1, 20)
    assert found(archive, end=30.5, slot=20.1) == (1, 12), "another process tries once more"


def test_behind_a_gap_it_goes_on_with_the_oldest_that_is_left() -> None:
    lost = Position(1, Lsn(12 * MIB))

    def after(slot: float | None, oldest: float | None, on: Line = ONE) -> Position | None:
        lsns = [None if number is None else Lsn(number * MIB) for number in (slot, oldest)]
        return position_after(lost, ServerView(on, Lsn(40.5 * MIB), lsns[0]), lsns[1])

    assert after(28.5, 20) == Position(1, Lsn(20 * MIB))
    assert after(28.5, None) == Position(1, Lsn(28 * MIB))
    assert after(None, None) == Position(1, Lsn(40 * MIB))
    assert after(11, 12, TWO) == Position(2, Lsn(40 * MIB))
    assert after(20.7, None, TWO) == Position(1, Lsn(20 * MIB)), "timeline 1 ends within it"
    nothing = ServerView(ONE, Lsn(12.5 * MIB), Lsn(11 * MIB))
    assert position_after(lost, nothing, None) is None


def test_only_few_names_are_asked_for_in_a_long_archive(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add(1, range(300))
    names: list[str] = []
    listing = archive.store.store.list

    def counting(*args: str, **options: object) -> Iterable[object]:
        for info in listing(*args, **options):  # type: ignore[arg-type]
            names.append(info.name.path)
            yield info

    monkeypatch.setattr(archive.store.store, "list", counting)
    assert found(archive, end=310, slot=300) == (1, 300)
    assert len(names) < 30
