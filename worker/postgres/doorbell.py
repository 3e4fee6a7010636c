"""Waking a thread that waits in poll(2), from any other thread."""

import os
import select
from contextlib import suppress
from threading import Lock


class Doorbell:
    """Readable, for poll, from the first ring until it is silenced. Closing it is final."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closed = False
        self._lock = Lock()

    def ring(self) -> None:
        """Harmless when nobody waits any more."""
        with self._lock, suppress(BlockingIOError):  # a full pipe rings already
            if not self._closed:
                os.write(self._write, b"!")

    def fileno(self) -> int:
        return self._read

    def silence(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._read, 1 << 12)

    def wait(self, seconds: float) -> None:
        """Until it rings, at most so long."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        if poll.poll(seconds * 1000):
            self.silence()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
                os.close(self._write)
