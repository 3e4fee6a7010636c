"""A `pgkeep-wal` beside the socket, that another account can run: PostgreSQL's.

That account may be kept out of the directory that pgkeep is installed in, and of its Python. So the
client, which is one file, is copied, and a Python that the account can run is linked to.
"""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from shared.errors import Refused
from worker import pgkeep_wal
from worker.postgres.programs import ENVIRONMENT

_CLIENT: Final = "pgkeep_wal.py"
_PYTHON: Final = "python3"
_SYSTEM_PYTHONS: Final = ("/usr/bin/python3", "/usr/local/bin/python3")
_READABLE: Final = 0o644
_PROBE_LIMIT_S: Final = 30
# What the client says instead of 1 for "absent": an interpreter that fails to start also says 1.
_ABSENT: Final = 44


class WalClientOutOfReach(Refused):
    """PostgreSQL's account cannot run the client."""

    code = "wal-client-out-of-reach"
    hint = (
        "Install Python 3.9 or later as /usr/bin/python3, and let the account pass through the "
        "directory that the message names."
    )


def publish_client(directory: Path, accounts: Iterable[int]) -> None:
    """Put client and Python into `directory`. Raises WalClientOutOfReach, after having tried."""
    source = Path(pgkeep_wal.__file__)
    _replace(directory / _CLIENT, partial(shutil.copyfile, source))
    uids = sorted(set(accounts) - {os.geteuid()}) if os.geteuid() == 0 else []
    pythons = (*_SYSTEM_PYTHONS, os.path.realpath(sys.executable))
    for python in pythons:
        _replace(directory / _PYTHON, partial(Path.symlink_to, target=python))
        if all(_can_run(directory, uid) for uid in (None, *uids)):
            return
    tried = ", ".join(pythons)
    raise WalClientOutOfReach(
        f"accounts {uids} cannot run {directory / _CLIENT} with any of {tried}"
    )


def restore_command(socket: Path, cluster: str | None = None) -> str:
    """For PostgreSQL, once a server listens there; with a `cluster` none but that cluster's.

    Whatever goes wrong on the way, the shell and the interpreter included, ends with 200:
    PostgreSQL would take their 1 or 2 for the end of the WAL.
    """
    absent = f"{_ABSENT}) s={pgkeep_wal.FETCH_ABSENT} ;;"
    whose = ("--cluster", cluster) if cluster else ()
    fetch = _client(socket, "--absent", str(_ABSENT), *whose, "fetch")
    return _guarded(f"{fetch} %f %p", failed=pgkeep_wal.FETCH_FAILED, absent=absent)


def archive_command(socket: Path) -> str:
    """For PostgreSQL, as soon as an agent listens there; whatever goes wrong ends with 1."""
    return _guarded(f"{_client(socket, 'push')} %p %f", failed=pgkeep_wal.PUSH_FAILED)


def _client(socket: Path, *words: str) -> str:
    directory = socket.parent
    program = (directory / _PYTHON, "-IS", directory / _CLIENT, "--socket", socket)
    # PostgreSQL replaces %f and %p, and %% by %.
    return " ".join(shlex.quote(str(word)) for word in (*program, *words)).replace("%", "%%")


def _guarded(command: str, *, failed: int, absent: str = "") -> str:
    cases = f"0) s=0 ;; {absent}".rstrip()
    return f"s={failed}; trap 'exit $s' 0; {command}; case $? in {cases} esac"


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    """Whoever runs the old one meanwhile keeps it whole."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    make(new)
    if not new.is_symlink():
        new.chmod(_READABLE)
    new.replace(path)


def _can_run(directory: Path, uid: int | None) -> bool:
    """Run without a verb the client says so, with the status that means an error."""
    group = None if uid is None else _group_of(uid)
    try:
        done = subprocess.run(  # noqa: S603 - an argument list; a Python of the system's or ours
            [directory / _PYTHON, "-IS", directory / _CLIENT],
            check=False,
            capture_output=True,
            cwd="/",
            env=dict(ENVIRONMENT),
            timeout=_PROBE_LIMIT_S,
            user=uid,
            group=group,
            extra_groups=None if uid is None else [],
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == pgkeep_wal.FETCH_FAILED


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid
