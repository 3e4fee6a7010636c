"""The agent's Unix socket: one agent a path, and the kernel tells which account calls.

The socket is open to every account; whoever is not listed gets no further than a refusal. A lock
beside it, which the kernel drops with its holder, tells a living agent's socket from a dead one's.
"""

import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import Conflict, Refused

_ADDRESS_MAX: Final = 107  # sun_path of unix(7), without its closing zero
_BACKLOG: Final = 64
_REACHABLE: Final = 0o755
_OPEN: Final = 0o666
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class WalSocketTaken(Conflict):
    """Another agent listens there."""

    code = "wal-socket-taken"
    hint = "Stop the other agent, or give this one another `wal.socket`."


class WalSocketRefused(Refused):
    """A path where a socket would be unsafe or cannot be."""

    code = "wal-socket-refused"
    hint = "Set `wal.socket` to a short path in a directory that only root or the agent writes to."


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at `path` until the block ends. Raises WalSocketTaken, WalSocketRefused."""
    if len(os.fsencode(path)) > _ADDRESS_MAX:
        raise WalSocketRefused(f"{path} is longer than the {_ADDRESS_MAX} bytes of an address")
    with ExitStack() as at_the_end:
        try:
            _make_directory(path.parent)
            at_the_end.callback(os.close, _lock(path))
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            at_the_end.enter_context(listener)
            _bind(listener, path)
        except OSError as error:
            raise WalSocketRefused(f"cannot listen at {path}: {error}") from None
        at_the_end.callback(path.unlink, missing_ok=True)
        yield listener


def _make_directory(directory: Path) -> None:
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(_REACHABLE)
    status = directory.stat()
    # Whoever may rename files there could put a socket of his own in the place of ours.
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid not in {0, os.geteuid()} or others_write:
        raise WalSocketRefused(f"other accounts may write to {directory}")


def _lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise WalSocketTaken(f"another agent listens at {path}") from None
    return descriptor


def _bind(listener: socket.socket, path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise WalSocketRefused(f"{path} exists and is no socket")
        path.unlink()
    listener.bind(str(path))
    path.chmod(_OPEN)
    listener.listen(_BACKLOG)
