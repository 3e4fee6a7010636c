"""Writing a restored data directory: nothing is followed, nothing half-done looks finished.

Until `finish`, a RESTORE_INCOMPLETE marker stands and global/pg_control has another name, so that
PostgreSQL cannot start from the directory. Files are created O_EXCL|O_NOFOLLOW below directory
descriptors that stay open: a symlink planted meanwhile is refused, not followed. Pieces of a file
come in any order and are written where they belong: there is never a second copy of anything.
"""

import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.domain.file_versions import PlannedFile
from shared.domain.restore_plan import PG_CONTROL
from shared.domain.tablespace_places import TablespaceLocation
from shared.errors import Refused, Unavailable

MARKER = "RESTORE_INCOMPLETE"
_HIDDEN_CONTROL = b"global/pg_control.restoring"
# Neither is ever part of a backup (basebackup.c, excludeFiles): a server made them here.
_PID_FILE, _OPTIONS_FILE = "postmaster.pid", "postmaster.opts"
_MARK = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TargetNotEmpty(Refused):
    """The directory to restore into holds something that is not an unfinished restore."""

    code = "target-not-empty"
    hint = "Choose an empty or new directory; pgkeep never restores over a data directory."


class TargetRunning(Refused):
    """A PostgreSQL server uses the directory."""

    code = "target-running"
    hint = "Stop that server first, and restore into another directory."


class TargetUnusable(Refused):
    """The directory cannot be written: rights, a read-only file system, a planted symlink."""

    code = "target-unusable"
    hint = "Check the owner, mode and mount of the directory."


class DiskFull(Unavailable):
    """The file system of the target has no room left; the restore is incomplete and says so."""

    code = "disk-full"
    hint = "Free space or choose a larger disk, then run the same restore again."


@dataclass(frozen=True, slots=True)
class Owner:
    """Account that shall own what a restore as root writes."""

    uid: int
    gid: int


class TargetTree:
    """The directories of one restore. Writing is safe from several threads."""

    def __init__(
        self, root: Path, tablespaces: Iterable[TablespaceLocation], owner: Owner | None
    ) -> None:
        self.root = root
        self._tablespaces = tuple(tablespaces)
        self._owner = owner
        self._directories: dict[bytes, int] = {}
        self._created: set[bytes] = set()
        self._lock = threading.Lock()

    @property
    def _roots(self) -> list[Path]:
        outside = [Path(item.location) for item in self._tablespaces if not item.in_place]
        return [self.root, *outside]

    def check_empty(self) -> None:
        """Raises TargetNotEmpty, TargetRunning or TargetUnusable; changes nothing."""
        for root in self._roots:
            check_restorable_into(root)

    def prepare(self, directories: Iterable[PlannedFile], note: str) -> None:
        """Clear an unfinished restore, set the marker, make every directory."""
        self.check_empty()
        planned = sorted({item.path: item for item in directories}.items())
        # No member stands for a root: the group may read it if it may read all that is below.
        mode = mode_of(min((item.mode for _, item in planned), default=0), 0o700)
        for root in self._roots:
            with disk_errors(os.fsencode(root)):
                _clear(root)
                root.mkdir(parents=True, exist_ok=True)
                self._mark(root, note)
                root.chmod(mode)
        self._open(b"", os.open(self.root, _DIRECTORY))
        # pg_tblspc comes first: the tablespaces' own directories hang below it.
        below = [pair for pair in planned if not pair[0].startswith(b"pg_tblspc/")]
        for path, item in below:
            self._make_directory(path, item.mode)
        for tablespace in self._tablespaces:
            self._attach(tablespace)
        for path, item in planned:
            if path.startswith(b"pg_tblspc/") and path not in self._directories:
                self._make_directory(path, item.mode)

    def write(self, file: PlannedFile, pieces: Iterable[tuple[int, memoryview]]) -> int:
        """Write each piece at its offset, creating the file first when these are its first ones.

        Returns the bytes written.
        """
        descriptor, total = self._open_file(file), 0
        try:
            with disk_errors(file.path):
                for offset, data in pieces:
                    _write_at(descriptor, offset, data)
                    total += len(data)
        finally:
            os.close(descriptor)
        return total

    def ensure(self, file: PlannedFile) -> None:
        """Create the file if nothing was written to it."""
        if _hidden(file.path) not in self._created:
            os.close(self._open_file(file))

    @contextmanager
    def reading(self, file: PlannedFile) -> Iterator[int]:
        """A descriptor of what was written, good for reading and flushing."""
        path = _hidden(file.path)
        parent, _, name = path.rpartition(b"/")
        with disk_errors(path):
            descriptor = os.open(name, _READ, dir_fd=self._directories[parent])
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def flush(self, file: PlannedFile) -> None:
        with self.reading(file) as descriptor:
            os.fsync(descriptor)

    def finish(self, *, sync: bool, control: bytes = PG_CONTROL) -> None:
        """Give pg_control its name and remove the marker: when all files are written and flushed.

        `control` is another name for what shall never be a data directory.
        """
        if sync:
            self._sync_directories()
        with disk_errors(PG_CONTROL):
            if _HIDDEN_CONTROL in self._created:
                self._rename_control(control)
            for root in self._roots:
                (root / MARKER).unlink()
        if sync:
            self._sync_directories()

    def close(self) -> None:
        for descriptor in self._directories.values():
            os.close(descriptor)
        self._directories.clear()

    def _rename_control(self, control: bytes) -> None:
        parent, _, hidden = _HIDDEN_CONTROL.rpartition(b"/")
        within = self._directories[parent]
        name = control.rpartition(b"/")[2]
        os.rename(hidden, name, src_dir_fd=within, dst_dir_fd=within)

    def _open_file(self, file: PlannedFile) -> int:
        path = _hidden(file.path)
        parent, _, name = path.rpartition(b"/")
        directory = self._directories.get(parent)
        if directory is None:
            raise TargetUnusable(f"no directory for {path!r} was planned")
        with disk_errors(path):
            # Creating under the lock: nobody may reopen what another thread is about to create.
            with self._lock:
                if path not in self._created:
                    descriptor = os.open(name, _CREATE, mode_of(file.mode, 0o600), dir_fd=directory)
                    self._created.add(path)
                    self._own(descriptor)
                    if file.composed:  # what no piece fills is zeros
                        os.ftruncate(descriptor, file.size)
                    return descriptor
            return os.open(name, _REOPEN, dir_fd=directory)

    def _make_directory(self, path: bytes, mode: int) -> None:
        parent, _, name = path.rpartition(b"/")
        if not name or path in self._directories:
            return
        above = self._directories[parent]
        with disk_errors(path):
            os.mkdir(name, mode_of(mode, 0o700), dir_fd=above)
            self._open(path, os.open(name, _DIRECTORY, dir_fd=above))

    def _attach(self, tablespace: TablespaceLocation) -> None:
        path = b"pg_tblspc/" + tablespace.oid.encode()
        if tablespace.in_place:
            self._make_directory(path, 0o700)
            return
        above = self._directories[b"pg_tblspc"]
        with disk_errors(path):
            os.symlink(os.fsencode(tablespace.location), tablespace.oid.encode(), dir_fd=above)
            self._open(path, os.open(tablespace.location, _DIRECTORY))

    def _open(self, path: bytes, descriptor: int) -> None:
        self._directories[path] = descriptor
        self._own(descriptor)

    def _mark(self, root: Path, note: str) -> None:
        descriptor = os.open(root / MARKER, _MARK, 0o600)
        try:
            os.write(descriptor, f"{note}\n".encode())
            self._own(descriptor)
        finally:
            os.close(descriptor)

    def _own(self, descriptor: int) -> None:
        if self._owner:
            os.fchown(descriptor, self._owner.uid, self._owner.gid)

    def _sync_directories(self) -> None:
        for path, descriptor in self._directories.items():
            with disk_errors(path):
                os.fsync(descriptor)


def check_restorable_into(root: Path) -> None:
    """Raises TargetNotEmpty, TargetRunning or TargetUnusable; changes nothing."""
    try:
        entries = {entry.name for entry in os.scandir(root)}
    except FileNotFoundError:
        return
    except OSError as error:
        raise TargetUnusable(f"cannot use {root}: {error.strerror}") from None
    for path in (root, root / MARKER):
        if path.is_symlink():
            raise TargetUnusable(f"{path} is a symbolic link")
    if _PID_FILE in entries:
        raise TargetRunning(f"{root} holds {_PID_FILE}")
    # A server that has run here wrote to it: whatever the marker says, it is no unfinished restore.
    if entries and (MARKER not in entries or _OPTIONS_FILE in entries):
        raise TargetNotEmpty(f"{root} is not empty: it holds {min(entries)!r}")


def mode_of(mode: int, least: int) -> int:
    """The source's mode, kept to owner and, where the cluster allows it, group reading."""
    return least | (stat.S_IMODE(mode) & (0o750 if least & stat.S_IXUSR else 0o640))


def _hidden(path: bytes) -> bytes:
    return _HIDDEN_CONTROL if path == PG_CONTROL else path


def _write_at(descriptor: int, offset: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written


def _clear(root: Path) -> None:
    """Remove an unfinished restore, and only that: the marker was checked before."""
    if not (root / MARKER).exists():
        return
    for entry in os.scandir(root):
        if entry.name == MARKER:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            (root / entry.name).unlink()


@contextmanager
def disk_errors(path: bytes) -> Iterator[None]:
    """The kernel's refusals become DiskFull or TargetUnusable."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(f"no space left for {path!r}") from None
        raise TargetUnusable(f"cannot write {path!r}: {error.strerror}") from None
