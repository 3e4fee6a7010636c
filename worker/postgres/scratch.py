"""The directory of one drill: private, marked as ours, and removable after a crash.

`sweep_leftovers` is the only thing here that kills and deletes. It touches directories that carry
our marker with the same label and an old enough time; and of processes, only one whose working
directory is that very data directory, held by a pidfd so that a reused number cannot be hit.
"""

import errno
import json
import os
import select
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from shared.errors import ScratchRefused
from worker.postgres.programs import Account

MARKER: Final = "pgkeep-drill.json"
# sockaddr_un.sun_path holds 108 bytes on Linux, the closing zero included (unix(7)).
SOCKET_PATH_MAX: Final = 107
SOCKET_NAME: Final = ".s.PGSQL.5432"
STOP_TIMEOUT_MS: Final = 30_000
_PID_FILE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Scratch:
    """One instance's own directory, mode 0700, and what lies where in it.

    `elsewhere` is a data directory that outlives the instance: a restore's target.
    """

    directory: Path
    elsewhere: Path | None = None

    @property
    def data(self) -> Path:
        return self.elsewhere or self.directory / "data"

    @property
    def tablespaces(self) -> Path:
        return self.directory / "tablespaces"

    @property
    def socket(self) -> Path:
        return self.directory / "s"

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    def write(self, name: str, text: str, account: Account | None) -> Path:
        """A small file of ours that the server's account can read.

        That account owns the directory and is not trusted: a link of its making is not followed.
        """
        path = self.directory / name
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
        _give(path, account)
        return path

    def open_log(self) -> BinaryIO:
        """For appending, and as wary of links as `write`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        return open(os.open(self.log, flags, 0o600), "ab")  # noqa: PTH123 - idem; the caller closes it


def read_tail(path: Path, limit: int) -> bytes:
    """The end of a plain file that the server's account may have replaced.

    A link would show that account what only we may read, and a pipe would hold us up for ever.
    Raises OSError for both.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - a descriptor
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise OSError(errno.EINVAL, "no plain file", str(path))
        file.seek(max(0, found.st_size - limit))
        return file.read(limit)


def make_scratch(
    root: Path, label: str, *, token: str, now: datetime, account: Account | None
) -> Scratch:
    """`<root>/<token>`, where `root` must exist. Raises ScratchRefused.

    `label` says whose it is (a cluster's name): sweeping goes by it. `token` is short and unused.
    """
    scratch = Scratch(root / token)
    length = len(os.fsencode(scratch.socket / SOCKET_NAME))
    if length > SOCKET_PATH_MAX:
        raise ScratchRefused(
            f"the path of the socket in {scratch.directory} has {length} bytes, "
            f"more than {SOCKET_PATH_MAX}"
        )
    try:
        scratch.directory.mkdir(0o700)
        for directory in (scratch.data, scratch.tablespaces, scratch.socket):
            directory.mkdir(0o700)
        scratch.write(MARKER, _marker(label, now), None)
        for path in (scratch.directory, scratch.socket, scratch.tablespaces, scratch.data):
            _give(path, account)
    except OSError as error:
        raise ScratchRefused(
            f"cannot make {scratch.directory}: {error.strerror or error}"
        ) from None
    return scratch


def make_passage(path: Path, label: str, *, now: datetime) -> None:
    """A directory of our own, which the server's account may pass through but not change; swept
    like a scratch one. Raises ScratchRefused.
    """
    try:
        path.mkdir(0o700)
        (path / MARKER).write_text(_marker(label, now), "utf-8")
        path.chmod(0o711)
    except OSError as error:
        raise ScratchRefused(f"cannot make {path}: {error.strerror or error}") from None


def hand_over(scratch: Scratch, account: Account | None) -> None:
    """Make the account the owner of all that was restored; links are not followed."""
    scratch.data.chmod(0o700)
    for root in (scratch.data, scratch.tablespaces):
        _give(root, account)
        for path in root.rglob("*"):
            _give(path, account)


def remove_scratch(scratch: Scratch) -> None:
    """Raises ScratchRefused when something cannot be deleted."""
    try:
        shutil.rmtree(scratch.directory)
    except OSError as error:
        raise ScratchRefused(f"cannot remove {scratch.directory}: {error}") from None


def sweep_leftovers(root: Path, label: str, *, older_than: datetime) -> list[Path]:
    """Stop and remove what earlier drills of `label` left before `older_than`; names what went."""
    swept = []
    for scratch in _marked(root, label, older_than):
        _stop_leftover(scratch)
        remove_scratch(scratch)
        swept.append(scratch.directory)
    return swept


def _marker(label: str, now: datetime) -> str:
    return json.dumps({"label": label, "created": now.isoformat()})


def _marked(root: Path, label: str, older_than: datetime) -> Iterator[Scratch]:
    for marker in sorted(root.glob(f"*/{MARKER}")):
        if marker.parent.is_symlink() or not marker.is_file():
            continue
        try:
            content = json.loads(marker.read_text("utf-8"))
            ours = content["label"] == label
            created = datetime.fromisoformat(content["created"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not written by us: not ours to delete
        if ours and created < older_than:
            yield Scratch(marker.parent)


def _stop_leftover(scratch: Scratch) -> None:
    """Raises ScratchRefused when the server does not end."""
    handle = _postmaster(scratch)
    if handle is None:
        return
    try:
        for number in (signal.SIGQUIT, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], STOP_TIMEOUT_MS / 1000)[0]:
                return
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
    raise ScratchRefused(f"the server in {scratch.directory} does not end")


def _postmaster(scratch: Scratch) -> int | None:
    """A pidfd of the server that runs in this data directory, if one does.

    The number in postmaster.pid may be another process by now. A postmaster works in its data
    directory (ChangeToDataDir); the pidfd is opened first, so what is checked is what is killed.
    """
    try:
        lines = read_tail(scratch.data / "postmaster.pid", _PID_FILE_BYTES)
        number = int(lines.split(b"\n", 1)[0])
        handle = os.pidfd_open(number)
    except (OSError, ValueError):
        return None
    try:
        if Path(f"/proc/{number}/cwd").samefile(scratch.data):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _give(path: Path, account: Account | None) -> None:
    if account:
        os.lchown(path, account.uid, account.gid)
