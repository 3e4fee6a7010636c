"""Pushing what waits behind the segment that PostgreSQL asks for, while it waits for that one.

PostgreSQL's archiver asks for one file at a time. Beside each, `archive_status` says which ones it
will ask for next; they are stored at the same time, and the answer is ready when it asks. Only
success is remembered, and only for the very file: a failure ahead is nobody's failure.
"""

import os
import re
import stat
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.domain.wal_segment import WalFileKind, WalFileName
from shared.errors import InvalidInput, PgkeepError
from shared.event_log import log_event
from worker.commands.wal_push import FileIdentity, identify

_REMEMBERED: Final = 4096
_READY: Final = re.compile(r"(?P<name>.+)\.ready")
_ORDINARY: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

PushOne = Callable[[FileIdentity, int], None]


@dataclass(frozen=True, slots=True)
class Handed:
    """A file of PostgreSQL's: its name, the client's descriptor, and where it lies."""

    name: WalFileName
    descriptor: int
    path: Path


class Pushes:
    """Pushes each file once at a time, some ahead. Safe to use from several threads; close it."""

    def __init__(self, push: PushOne, *, parallel: int) -> None:
        self._push = push
        self._ahead = parallel - 1  # the one that PostgreSQL waits for runs in its caller's thread
        self._known: OrderedDict[FileIdentity, Future[None]] = OrderedDict()
        self._queue: deque[str] = deque()
        self._folder: Path | None = None
        self._under_way = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(
            max(1, self._ahead), thread_name_prefix="pgkeep-wal-ahead"
        )

    def push(self, file: Handed) -> None:
        """Durable when it returns. Raises what pushing this very file raises."""
        identity = identify(file.name, file.descriptor)
        result, ours = self._claim(identity)
        self._look_ahead(file, identity)
        if ours:
            self._run(result, identity, file.descriptor)
        result.result()

    def folder(self) -> Path | None:
        """Where PostgreSQL's files lie, once one was seen there."""
        with self._lock:
            return self._folder

    def close(self) -> None:
        """Waits for what is under way; the rest PostgreSQL will ask for again."""
        self._threads.shutdown(cancel_futures=True)

    def _claim(self, identity: FileIdentity) -> tuple[Future[None], bool]:
        """Where its result will be, and whether it is the caller's to bring about."""
        with self._lock:
            known = self._known.get(identity)
            if known is not None and not (known.done() and known.exception()):
                return known, False
            result: Future[None] = Future()
            self._known[identity] = result
            self._known.move_to_end(identity)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return result, True

    def _run(self, result: Future[None], identity: FileIdentity, descriptor: int) -> None:
        try:
            self._push(identity, descriptor)
        except PgkeepError as error:
            result.set_exception(error)
        except BaseException as error:
            result.set_exception(error)
            raise
        else:
            result.set_result(None)

    def _look_ahead(self, file: Handed, identity: FileIdentity) -> None:
        """Nothing when the client's path does not lead to the client's file."""
        try:
            status = file.path.lstat()
        except OSError:
            return
        if (status.st_dev, status.st_ino) != (identity.device, identity.inode):
            return
        folder = file.path.parent
        with self._lock:
            self._folder = folder
            if self._ahead and not self._queue:
                self._queue = deque(map(str, waiting_names(folder) or ()))
        started = 0
        while started < self._ahead and (name := self._next_name()) is not None:
            if name != str(file.name):
                started += self._start(folder / name, WalFileName.parse(name), status.st_uid)

    def _next_name(self) -> str | None:
        with self._lock:
            room = self._ahead > self._under_way
            return self._queue.popleft() if room and self._queue else None

    def _start(self, path: Path, name: WalFileName, owner: int) -> bool:
        try:
            descriptor = os.open(path, _ORDINARY)
        except OSError:
            return False
        status = os.fstat(descriptor)
        if status.st_uid == owner and stat.S_ISREG(status.st_mode):
            identity = identify(name, descriptor)
            result, ours = self._claim(identity)
            if ours:
                with self._lock:
                    self._under_way += 1
                self._threads.submit(self._run_ahead, result, identity, descriptor)
                return True
        os.close(descriptor)
        return False

    def _run_ahead(self, result: Future[None], identity: FileIdentity, descriptor: int) -> None:
        try:
            self._run(result, identity, descriptor)
        finally:
            os.close(descriptor)
            with self._lock:
                self._under_way -= 1
        if error := result.exception():
            with self._lock:
                self._queue.clear()  # begin again with the oldest
            log_event("wal-push-ahead-failed", name=str(identity.name), error=str(error))


def waiting_names(folder: Path) -> list[WalFileName] | None:
    """What PostgreSQL will hand over, in its order; None where we may not look."""
    try:
        entries = os.listdir(folder / "archive_status")  # noqa: PTH208 - names are all we need
    except OSError:
        return None
    return sorted(_names(entries), key=_order)


def _names(entries: list[str]) -> Iterator[WalFileName]:
    for entry in entries:
        if match := _READY.fullmatch(entry):
            with suppress(InvalidInput):
                yield WalFileName.parse(match["name"])


def _order(name: WalFileName) -> tuple[bool, str]:
    """History files first, as pgarch.c has it: they keep a new timeline's number from others."""
    return name.kind is not WalFileKind.HISTORY, str(name)
