"""A folder for segments that PostgreSQL will ask for soon: whole ones only, and ours alone.

Every server has a folder of its own below the spool, locked while it lives. What a dead one left is
removed, never used: nobody could say whether it is whole. All access goes through the folder's
descriptor, so nobody can exchange the folder under us.
"""

import errno
import fcntl
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shared.errors import Refused, Unavailable

_PREFIX: Final = "server-"
_TEMPORARY: Final = ".incoming-"
_OURS: Final = 0o700
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# A data directory of any version has this file (trap 32: pg_rewind trips over foreign files).
_DATA_DIRECTORY_MARK: Final = "PG_VERSION"


class SpoolRefused(Refused):
    """A directory that cannot be the spool."""

    code = "wal-spool-refused"
    hint = "Set `wal.spool` to a directory of the agent's own, outside of every data directory."


class SpoolUnavailable(Unavailable):
    """The spool's disk is full or does not work."""

    code = "wal-spool-unavailable"
    hint = "Make room where `wal.spool` lies, or set `wal.prefetch_bytes` lower."


class Spool:
    """Files by name, in a folder whose descriptor it is given. Safe to use from several threads."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def keep(self, name: str, content: bytes) -> None:
        """It appears whole or not at all. Raises SpoolUnavailable."""
        with _file_errors(name):
            temporary = self._written(name, content)
            os.rename(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def open(self, name: str) -> int:
        """A descriptor to read from; it outlives `drop`. Raises SpoolUnavailable."""
        with _file_errors(name):
            return os.open(name, _READ, dir_fd=self._folder)

    def pass_through(self, name: str, content: bytes) -> int:
        """A descriptor of a file that nobody will find here. Raises SpoolUnavailable."""
        with _file_errors(name):
            temporary = self._written(name, content)
            try:
                return os.open(temporary, _READ, dir_fd=self._folder)
            finally:
                os.unlink(temporary, dir_fd=self._folder)

    def drop(self, name: str) -> None:
        """What cannot be removed now goes with the folder."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def _written(self, name: str, content: bytes) -> str:
        temporary = f"{_TEMPORARY}{name}-{next(self._numbers)}"
        descriptor = os.open(temporary, _NEW, 0o600, dir_fd=self._folder)
        try:
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
        except OSError:
            os.unlink(temporary, dir_fd=self._folder)
            raise
        return temporary


@contextmanager
def open_spool(root: Path, token: str) -> Iterator[Spool]:
    """A folder of our own below `root`, gone at the end. Raises SpoolRefused."""
    _require_outside(root)
    path = root / f"{_PREFIX}{token}"
    try:
        root.mkdir(mode=_OURS, parents=True, exist_ok=True)
        with _locked(root):  # else a neighbour could take our folder for a dead one's
            _sweep(root)
            path.mkdir(mode=_OURS)
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError as error:
        raise SpoolRefused(f"cannot use {root}: {error}") from None
    try:
        yield Spool(folder)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(folder)


def _require_outside(root: Path) -> None:
    real = root.resolve()
    for folder in (real, *real.parents):
        if (folder / _DATA_DIRECTORY_MARK).exists():
            raise SpoolRefused(f"{root} lies in the data directory {folder}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(root: Path) -> None:
    """Remove the folders whose servers are dead; another account's are another account's."""
    for path in root.glob(f"{_PREFIX}*"):
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        with suppress(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        os.close(folder)


@contextmanager
def _file_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise SpoolUnavailable(f"cannot keep {name} in the spool: {reason}") from None
