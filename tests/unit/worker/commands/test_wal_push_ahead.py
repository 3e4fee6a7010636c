"""Which files are pushed, when, and what is remembered of it."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segment_name
from shared.errors import PgkeepError, StorageUnavailable
from tests.harness.deadline import wait_until
from worker.commands.wal_push import FileIdentity, WalFileRefused
from worker.commands.wal_push_ahead import Handed, Pushes, waiting_names

MIB = 1 << 20
NAMES = [segment_name(1, Lsn(number * MIB), MIB) for number in range(1, 30)]
LIMIT_S = 10


class Archive:
    """What was pushed, in order; pushes wait while `open` is not set."""

    def __init__(self) -> None:
        self.pushed: list[str] = []
        self.failing: dict[str, PgkeepError] = {}
        self.open = threading.Event()
        self.open.set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def push(self, identity: FileIdentity, descriptor: int) -> None:
        assert os.pread(descriptor, 24, 0) == b"content"
        name = str(identity.name)
        with self._lock:
            self.pushed.append(name)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            assert self.open.wait(LIMIT_S)
            if name in self.failing:
                raise self.failing[name]
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    (tmp_path / "archive_status").mkdir()
    return tmp_path


Make = Callable[..., Pushes]


@pytest.fixture
def make(archive: Archive) -> Iterator[Make]:
    with ExitStack() as at_the_end:
        yield lambda parallel=4: at_the_end.enter_context(
            closing(Pushes(archive.push, parallel=parallel))
        )


def ready(wal: Path, *names: str) -> None:
    for name in names:
        (wal / name).write_bytes(b"content")
        (wal / "archive_status" / f"{name}.ready").touch()


def push(pushes: Pushes, wal: Path, name: str, path: Path | None = None) -> None:
    descriptor = os.open(wal / name, os.O_RDONLY)
    try:
        pushes.push(Handed(WalFileName.parse(name), descriptor, path or wal / name))
    finally:
        os.close(descriptor)


def test_what_waits_behind_the_one_asked_for_is_pushed_at_the_same_time_and_once(
    make: Make, archive: Archive, wal: Path
) -> None:
    ready(wal, *NAMES[:8])
    pushes = make(parallel=4)
    for name in NAMES[:8]:
        push(pushes, wal, name)
    assert sorted(archive.pushed) == NAMES[:8]
    assert archive.pushed[0] in NAMES[:4]
    assert pushes.folder() == wal


def test_no_more_than_parallel_are_under_way(make: Make, archive: Archive, wal: Path) -> None:
    ready(wal, *NAMES[:8])
    pushes = make(parallel=4)
    archive.open.clear()
    asking = threading.Thread(target=push, args=(pushes, wal, NAMES[0]))
    asking.start()
    wait_until(lambda: archive.at_once == 4, LIMIT_S, "four are under way")
    archive.open.set()
    asking.join()
    assert archive.most_at_once == 4
    assert sorted(archive.pushed) == NAMES[:4]


def test_with_parallel_one_nothing_goes_ahead(make: Make, archive: Archive, wal: Path) -> None:
    ready(wal, *NAMES[:4])
    push(make(parallel=1), wal, NAMES[0])
    assert archive.pushed == NAMES[:1]


def test_history_files_go_first_and_what_is_no_wal_never(
    make: Make, archive: Archive, wal: Path
) -> None:
    history = "00000002.history"
    ready(wal, *NAMES[:3], history, "postgresql.conf")
    (wal / "archive_status" / f"{NAMES[5]}.done").touch()
    assert list(map(str, waiting_names(wal) or [])) == [history, *NAMES[:3]]
    pushes = make(parallel=2)
    push(pushes, wal, NAMES[0])
    wait_until(lambda: len(archive.pushed) == 2, LIMIT_S, "one went ahead")
    assert sorted(archive.pushed) == sorted([NAMES[0], history])


def test_a_failure_ahead_is_nobodys_failure_and_is_tried_again_when_it_is_asked_for(
    make: Make, archive: Archive, wal: Path
) -> None:
    ready(wal, *NAMES[:2])
    archive.failing[NAMES[1]] = StorageUnavailable("away")
    pushes = make(parallel=2)
    push(pushes, wal, NAMES[0])
    wait_until(lambda: archive.pushed.count(NAMES[1]) and not archive.at_once, LIMIT_S, "tried")
    with pytest.raises(StorageUnavailable):
        push(pushes, wal, NAMES[1])
    archive.failing.clear()
    push(pushes, wal, NAMES[1])
    push(pushes, wal, NAMES[1])
    assert archive.pushed.count(NAMES[1]) == 3
    assert archive.pushed.count(NAMES[0]) == 1


def test_success_is_remembered_for_the_very_file_only(
    make: Make, archive: Archive, wal: Path
) -> None:
    ready(wal, NAMES[0])
    pushes = make()
    push(pushes, wal, NAMES[0])
    push(pushes, wal, NAMES[0])
    assert archive.pushed.count(NAMES[0]) == 1
    os.utime(wal / NAMES[0], ns=(1, 1))  # written to again
    push(pushes, wal, NAMES[0])
    assert archive.pushed.count(NAMES[0]) == 2
    (wal / NAMES[0]).rename(wal / NAMES[4])  # recycled, as PostgreSQL does
    push(pushes, wal, NAMES[4])
    assert archive.pushed.count(NAMES[4]) == 1


def test_whoever_asks_for_one_under_way_waits_for_it(
    make: Make, archive: Archive, wal: Path
) -> None:
    ready(wal, *NAMES[:2])
    archive.open.clear()
    pushes = make(parallel=2)
    asking = [threading.Thread(target=push, args=(pushes, wal, name)) for name in NAMES[:2] * 2]
    for thread in asking:
        thread.start()
    wait_until(lambda: archive.at_once == 2, LIMIT_S, "both are under way")
    assert all(thread.is_alive() for thread in asking)
    archive.open.set()
    for thread in asking:
        thread.join()
    assert sorted(archive.pushed) == NAMES[:2]


@pytest.mark.parametrize("lie", ["elsewhere", "link", "vanished"])
def test_a_path_that_does_not_lead_to_the_file_opens_no_other_file(
    make: Make, archive: Archive, wal: Path, lie: str
) -> None:
    ready(wal, *NAMES[:3])
    other = wal / "other"
    (other / "archive_status").mkdir(parents=True)
    ready(other, *NAMES[:3])
    path = {"elsewhere": other / NAMES[0], "vanished": other / "gone", "link": wal / "link"}[lie]
    (wal / "link").symlink_to(wal / NAMES[0])
    pushes = make()
    push(pushes, wal, NAMES[0], path)
    assert pushes.folder() is None
    assert archive.pushed == NAMES[:1]


def test_a_link_or_another_accounts_file_beside_it_is_not_followed(
    make: Make, archive: Archive, wal: Path
) -> None:
    ready(wal, *NAMES[:4])
    (wal / NAMES[1]).unlink()
    (wal / NAMES[1]).symlink_to("/etc/passwd")
    (wal / NAMES[2]).unlink()
    os.mkfifo(wal / NAMES[2])
    if os.geteuid() == 0:
        os.chown(wal / NAMES[3], 54321, 54321)
    else:
        (wal / NAMES[3]).unlink()
    push(make(), wal, NAMES[0])
    assert archive.pushed == NAMES[:1]


def test_what_is_no_ordinary_file_is_refused(make: Make, wal: Path) -> None:
    read, write = os.pipe()
    with pytest.raises(WalFileRefused, match="no ordinary file"):
        make().push(Handed(WalFileName.parse(NAMES[0]), read, wal / NAMES[0]))
    os.close(read)
    os.close(write)
