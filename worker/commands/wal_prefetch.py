"""Segments before PostgreSQL asks for them: some threads read the next ones into the spool.

A guess, so it decides nothing. What was absent, incomplete or unreadable is left to whoever is
asked for that very segment, who looks again; an error is told to the one that waited for it.
"""

import os
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from shared.domain.wal_segment import SEGMENT_SIZE_MIN, WalFileName
from shared.errors import PgkeepError
from worker.commands.wal_reader import ReadSegment, WalAbsent
from worker.commands.wal_spool import Spool

# At the end nobody waits longer for a read that storage does not answer.
_LAST_WORDS_S: Final = 1.0

ReadOne = Callable[[WalFileName], ReadSegment]


class Prefetcher:
    """Keeps at most `limit` bytes of segments. Safe to use from several threads; `close` it."""

    def __init__(self, read: ReadOne, spool: Spool, *, parallel: int, limit: int) -> None:
        self._read = read
        self._spool = spool
        self._limit = limit
        self._changed = threading.Condition()
        self._wanted: tuple[str, ...] = ()
        self._reading: set[str] = set()
        self._ready: dict[str, int] = {}
        # Where guessing ends until the next aim, and what was wrong there if something was.
        self._halted: dict[str, PgkeepError | None] = {}
        self._segment_size = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"pgkeep-wal-prefetch-{number}", daemon=True)
            for number in range(parallel)
        ]
        for thread in self._threads:
            thread.start()

    def aim(self, names: Iterable[str], segment_size: int = 0) -> None:
        """Whatever is wanted next, in this order. Looks at no more names than there is room for."""
        with self._changed:
            self._segment_size = segment_size or self._segment_size
            room = self._limit // (self._segment_size or SEGMENT_SIZE_MIN)
            self._wanted = tuple(islice(names, room))
            self._halted.clear()
            self._changed.notify_all()

    def take(self, name: str) -> int | None:
        """A descriptor of the segment, if it is there or on its way. Raises what kept it away."""
        with self._changed:
            on_its_way = name in self._reading
            self._changed.wait_for(lambda: name not in self._reading)
            error = self._halted.pop(name, None)
            if error is not None and on_its_way:
                raise error
            return self._open(name) if name in self._ready else None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_LAST_WORDS_S / len(self._threads))

    def _open(self, name: str) -> int | None:
        """None, and forgotten, when somebody touched the file."""
        descriptor = self._spool.open(name)
        if os.fstat(descriptor).st_size == self._ready[name]:
            return descriptor
        os.close(descriptor)
        self._forget(name)
        return None

    def _work(self) -> None:
        while (name := self._next()) is not None:
            size, error = 0, None
            try:
                size, error = self._fetch(name)
            finally:
                self._settle(name, size, error)

    def _settle(self, name: str, size: int, error: PgkeepError | None) -> None:
        with self._changed:
            self._reading.discard(name)
            if size:
                self._ready[name] = self._segment_size = size
            else:
                self._halted[name] = error
            self._changed.notify_all()

    def _fetch(self, name: str) -> tuple[int, PgkeepError | None]:
        """Size of what is kept, or 0 and perhaps why."""
        try:
            segment = self._read(WalFileName.parse(name))
            if segment.complete and len(segment.content) <= self._limit and not self._closed:
                self._spool.keep(name, segment.content)
                return len(segment.content), None
        except WalAbsent:
            return 0, None
        except PgkeepError as error:
            return 0, error
        return 0, None

    def _next(self) -> str | None:
        """The first wanted segment that nobody reads, once there is room; None at the end."""
        with self._changed:
            while not self._closed:
                name = self._candidate()
                if name is not None:
                    self._reading.add(name)
                    return name
                self._changed.wait()
        return None

    def _candidate(self) -> str | None:
        if self._segment_size == 0 and self._reading:
            return None  # the first one tells how many there is room for
        room = self._limit // (self._segment_size or self._limit)
        window = self._wanted[:room]
        for name in window:
            if name in self._halted:
                return None
            if name not in self._ready and name not in self._reading:
                return name if self._make_room(window, room) else None
        return None

    def _make_room(self, window: tuple[str, ...], room: int) -> bool:
        """Drop what nobody is expected to ask for again, the oldest first."""
        outside = [name for name in self._ready if name not in window]
        while len(self._ready) + len(self._reading) >= room and outside:
            self._forget(outside.pop(0))
        return len(self._ready) + len(self._reading) < room

    def _forget(self, name: str) -> None:
        del self._ready[name]
        self._spool.drop(name)
