"""Reading ahead into the spool: bounded, in order, and never a source of what is not whole."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segment_name
from shared.errors import StorageUnavailable
from tests.harness.deadline import wait_until
from worker.commands.wal_prefetch import Prefetcher
from worker.commands.wal_reader import ReadSegment, WalAbsent
from worker.commands.wal_spool import Spool, SpoolRefused, SpoolUnavailable, open_spool

MIB = 1 << 20
NAMES = [segment_name(1, Lsn(number * MIB), MIB) for number in range(1, 40)]
LIMIT_S = 10


def content_of(name: str, size: int = MIB) -> bytes:
    return name.encode().ljust(size, b".")


class Storage:
    """Answers reads as told, and knows who reads."""

    def __init__(self) -> None:
        self.size = MIB
        self.asked: list[str] = []
        self.partial: set[str] = set()
        self.absent: set[str] = set()
        self.failing: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def read(self, name: WalFileName) -> ReadSegment:
        text = str(name)
        with self._lock:
            self.asked.append(text)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            assert self.open.wait(LIMIT_S)
            if text in self.absent:
                raise WalAbsent(text)
            if text in self.failing:
                raise StorageUnavailable(text)
            return ReadSegment(content_of(text, self.size), complete=text not in self.partial)
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def storage() -> Storage:
    return Storage()


Make = Callable[..., Prefetcher]


@pytest.fixture
def make(tmp_path: Path, storage: Storage) -> Iterator[Make]:
    with ExitStack() as at_the_end:
        spool = at_the_end.enter_context(open_spool(tmp_path / "spool", "token"))

        def made(limit: int = 8 * MIB, parallel: int = 3) -> Prefetcher:
            prefetcher = Prefetcher(storage.read, spool, parallel=parallel, limit=limit)
            return at_the_end.enter_context(closing(prefetcher))

        yield made


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "spool" / "server-token").iterdir())


def taken(prefetcher: Prefetcher, name: str) -> bytes | None:
    descriptor = prefetcher.take(name)
    if descriptor is None:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        return file.read()


def test_r25_what_comes_next_is_there_before_it_is_asked_for_and_no_more_than_there_is_room_for(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    prefetcher = make()
    storage.open.clear()
    prefetcher.aim(iter(NAMES), MIB)
    wait_until(lambda: storage.at_once == 3, LIMIT_S, "three are read at once")
    storage.open.set()
    wait_until(lambda: kept(tmp_path) == NAMES[:8], LIMIT_S, "eight segments are kept")
    assert [taken(prefetcher, name) for name in NAMES[:8]] == [*map(content_of, NAMES[:8])]
    assert sorted(storage.asked) == NAMES[:8]
    assert storage.most_at_once == 3
    for number in range(1, 20):
        prefetcher.aim(iter(NAMES[number:]), MIB)
        wait_until(lambda: NAMES[number + 7] in kept(tmp_path), LIMIT_S, "the window moved on")  # noqa: B023
        assert len(kept(tmp_path)) <= 8
    assert sorted(storage.asked) == NAMES[:27]  # each once


def test_the_first_segment_tells_how_many_there_is_room_for(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.open.clear()
    prefetcher = make(limit=2 * MIB)
    prefetcher.aim(iter(NAMES))
    wait_until(lambda: storage.at_once, LIMIT_S, "the first one is read")
    assert storage.asked == NAMES[:1]
    storage.open.set()
    wait_until(lambda: kept(tmp_path) == NAMES[:2], LIMIT_S, "two are kept")
    assert storage.asked == NAMES[:2]


def test_a_segment_larger_than_the_spool_passes_by(make: Make, storage: Storage) -> None:
    storage.size = 2 * MIB
    prefetcher = make(limit=MIB)
    prefetcher.aim(iter(NAMES))
    wait_until(lambda: storage.asked, LIMIT_S, "one was tried")
    assert taken(prefetcher, NAMES[0]) is None
    prefetcher.aim(iter(NAMES), 2 * MIB)
    assert taken(prefetcher, NAMES[0]) is None
    assert storage.asked == NAMES[:1]


def test_whoever_asks_waits_for_what_is_on_its_way(make: Make, storage: Storage) -> None:
    storage.open.clear()
    prefetcher = make()
    prefetcher.aim(iter(NAMES[:1]), MIB)
    wait_until(lambda: storage.at_once, LIMIT_S, "it is read")
    threading.Timer(0.05, storage.open.set).start()
    assert taken(prefetcher, NAMES[0]) == content_of(NAMES[0])
    assert storage.asked == NAMES[:1]


def test_r24_incomplete_absent_and_unreadable_segments_are_never_kept_and_end_the_guessing(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.partial, storage.absent, storage.failing = {NAMES[2]}, {NAMES[5]}, {NAMES[8]}
    for troubled in (2, 5, 8):
        prefetcher = make(parallel=1)
        prefetcher.aim(iter(NAMES[troubled - 1 :]), MIB)
        wait_until(lambda: NAMES[troubled] in storage.asked, LIMIT_S, "it was tried")  # noqa: B023
        assert taken(prefetcher, NAMES[troubled]) is None
        assert NAMES[troubled] not in kept(tmp_path)
        prefetcher.close()
        assert NAMES[troubled + 1] not in storage.asked


def test_an_error_is_told_to_whoever_waited_for_that_very_segment(
    make: Make, storage: Storage
) -> None:
    storage.failing = {NAMES[0]}
    storage.open.clear()
    prefetcher = make()
    prefetcher.aim(iter(NAMES[:1]), MIB)
    wait_until(lambda: storage.at_once, LIMIT_S, "it is read")
    threading.Timer(0.05, storage.open.set).start()
    with pytest.raises(StorageUnavailable):
        prefetcher.take(NAMES[0])
    assert prefetcher.take(NAMES[0]) is None  # the next one looks for himself


def test_r24_a_file_in_the_spool_that_somebody_cut_is_not_handed_out(
    make: Make, tmp_path: Path
) -> None:
    prefetcher = make()
    prefetcher.aim(iter(NAMES[:1]), MIB)
    wait_until(lambda: NAMES[0] in kept(tmp_path), LIMIT_S, "it is kept")
    os.truncate(tmp_path / "spool" / "server-token" / NAMES[0], 1000)
    assert prefetcher.take(NAMES[0]) is None
    assert kept(tmp_path) == []


def test_the_end_does_not_wait_for_storage_that_does_not_answer(
    make: Make, storage: Storage
) -> None:
    storage.open.clear()
    prefetcher = make()
    prefetcher.aim(iter(NAMES), MIB)
    wait_until(lambda: storage.at_once == 3, LIMIT_S, "three are read")
    prefetcher.close()
    assert storage.at_once == 3
    storage.open.set()
    wait_until(lambda: storage.at_once == 0, LIMIT_S, "the threads are gone")


def test_r24_what_a_dead_server_left_is_removed_and_a_living_ones_folder_is_not(
    tmp_path: Path,
) -> None:
    left = tmp_path / "server-dead"
    left.mkdir()
    (left / NAMES[0]).write_bytes(b"half a segment")
    (tmp_path / "foreign").write_text("not ours")
    with open_spool(tmp_path, "one") as one:
        assert not left.exists()
        one.keep(NAMES[0], b"one's")
        with open_spool(tmp_path, "two") as two:
            with pytest.raises(SpoolUnavailable):
                two.open(NAMES[0])
            descriptor = one.open(NAMES[0])
            assert os.read(descriptor, 100) == b"one's"
            os.close(descriptor)
        assert (tmp_path / "server-one").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign"]


def test_what_passes_through_leaves_nothing_behind(tmp_path: Path) -> None:
    with open_spool(tmp_path, "one") as spool:
        descriptor = spool.pass_through(NAMES[0], b"content")
        assert [*(tmp_path / "server-one").iterdir()] == []
        assert os.read(descriptor, 100) == b"content"
        with pytest.raises(OSError, match="Bad file"):
            os.write(descriptor, b"more")
        os.close(descriptor)


def test_a_spool_inside_a_data_directory_or_where_none_can_be_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "pg_wal").mkdir(parents=True)
    (data / "PG_VERSION").write_text("17")
    (tmp_path / "link").symlink_to(data / "pg_wal")
    for root in (data, data / "pg_wal" / "spool", tmp_path / "link" / "spool"):
        with pytest.raises(SpoolRefused, match="lies in the data directory"), open_spool(root, "t"):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(SpoolRefused, match="cannot use"), open_spool(tmp_path / "file", "t"):
        pass


def test_a_full_disk_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.open("/proc/self", os.O_RDONLY)  # where no file can be made
    with pytest.raises(SpoolUnavailable, match=NAMES[0]):
        Spool(folder).keep(NAMES[0], b"content")
    os.close(folder)
