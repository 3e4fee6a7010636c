"""How much a restore took of the disk at its worst, and what was left of it at the end."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

# Looking at a few thousand files takes some milliseconds, which the measured program must not feel.
_SAMPLE_EVERY_S = 0.2
_BLOCK = 512  # unit of st_blocks, whatever the file system's own


class DiskPeak:
    """Adds up what lies below a folder, again and again, from a thread, while the block runs."""

    def __init__(self, folder: Path) -> None:
        self.peak_bytes = 0
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, allocated(self._folder))


def allocated(folder: Path) -> int:
    """Bytes that the files below `folder` take, as du counts them; some may go meanwhile."""
    return sum(status.st_blocks * _BLOCK for status in _statuses(folder))


def _statuses(folder: str | Path) -> Iterator[os.stat_result]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    yield from _statuses(entry.path)
