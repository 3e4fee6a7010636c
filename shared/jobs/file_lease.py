"""Leases in a directory repository: flock(2) excludes, a JSON file beside it says who holds it.

The kernel frees the lock when the process dies, however it dies: nothing has to expire, and
`ttl_s` only paces the renewals. For one machine and its local file systems, not for NFS.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from threading import Event
from uuid import uuid4

from shared.errors import InvalidInput, LeaseLost, StorageDenied, StorageUnavailable
from shared.jobs.lease import Lease, LeaseRecord, held_by

# `current` takes the lock for an instant to see whether it is free; a contender tries again.
_TRIES = 5
_PAUSE_S = 0.02


class LeaseNameInvalid(InvalidInput):
    """A name that would lead out of the directory."""

    code = "lease-name-invalid"
    hint = "Parts between slashes are not empty and do not begin with a dot."


class FileLeases:
    """See shared.jobs.lease.LeaseStore for the contract. `clock` tells the time of acquisition."""

    def __init__(self, directory: Path, clock: Callable[[], datetime]) -> None:
        self._directory = directory
        self._clock = clock
        self._locks: dict[str, int] = {}

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        path = self._path(name)
        with ExitStack() as undo:
            lock = self._open_lock(path)
            undo.callback(os.close, lock)
            if not _try_lock(lock, fcntl.LOCK_EX):
                raise held_by(name, LeaseRecord.parse(name, _read(path)))
            record = self._next_record(name, holder)
            _replace(path, record.model_dump_json().encode())
            undo.pop_all()
        handle = uuid4().hex
        self._locks[handle] = lock
        return Lease(name, record.token, holder, record.acquired_at, ttl_s, handle)

    def renew(self, lease: Lease) -> None:
        lock = self._locks.get(lease.handle)
        record = LeaseRecord.parse(lease.name, _read(self._path(lease.name)))
        if lock is None or record is None or record.token != lease.token:
            raise LeaseLost(f"lease {lease.name} with token {lease.token} is no longer held")
        if not _is_file(lock, _lock_path(self._path(lease.name))):
            raise LeaseLost(f"lease {lease.name}: its lock file was replaced")

    def release(self, lease: Lease) -> None:
        lock = self._locks.pop(lease.handle, None)
        if lock is not None:
            os.close(lock)

    def current(self, name: str) -> LeaseRecord | None:
        path = self._path(name)
        with suppress(FileNotFoundError):
            lock = os.open(_lock_path(path), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if not _try_lock(lock, fcntl.LOCK_SH, tries=1):
                    return LeaseRecord.parse(name, _read(path))
            finally:
                os.close(lock)
        return None

    def _path(self, name: str) -> Path:
        if any(not part or part.startswith(".") for part in name.split("/")) or "\0" in name:
            raise LeaseNameInvalid(f"{name!r} cannot name a lease")
        return self._directory / name

    def _open_lock(self, path: Path) -> int:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except PermissionError as error:
            raise StorageDenied(f"{path}: {error.strerror}") from error
        except OSError as error:
            raise StorageUnavailable(f"{path}: {error.strerror}") from error

    def _next_record(self, name: str, holder: str) -> LeaseRecord:
        previous = LeaseRecord.parse(name, _read(self._path(name)))
        token = previous.token + 1 if previous else 1
        return LeaseRecord(token=token, holder=holder, acquired_at=self._clock())


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _try_lock(lock: int, mode: int, *, tries: int = _TRIES) -> bool:
    for _ in range(tries):
        with suppress(BlockingIOError):
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
            return True
        Event().wait(_PAUSE_S)
    return False


def _is_file(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.lstat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _replace(path: Path, data: bytes) -> None:
    """Atomic and durable: a token that was given out is never given again."""
    new = path.with_name(f".{path.name}.{uuid4().hex}")
    with new.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
