"""DIR of `python -m local up --dir DIR`: whose it is, who runs in it, where its data lie.

`DIR/stack.json` is the mark of a directory that we may empty, and the record by which `down`
finds the process that holds the stack.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from local import processes
from local.processes import ProcessRecord
from local.unprivileged import (
    DirectoryOutOfReach,
    hand_over,
    make_reachable_directory,
    server_account,
)
from shared.errors import Conflict, Refused

FORMAT = "pgkeep-local-stack-1"
RECORD = "stack.json"
# What `up --detach` writes into before the stack itself begins.
START_LOG = "up.log"
_STOP_S = 60.0


class DirectoryNotOurs(Refused):
    """A folder that holds something, and not a stack."""

    code = "stack-directory-not-ours"
    hint = "Give another folder: the stack would empty this one."


class StackRuns(Conflict):
    """A stack runs in this folder already."""

    code = "stack-runs"
    hint = "End it with `python -m local down --dir DIR`, or take another folder."


@dataclass(frozen=True, slots=True)
class StackDirectory:
    """`root` is the user's DIR; `data` lies in it unless PostgreSQL's account cannot get there."""

    root: Path
    data: Path

    @property
    def config(self) -> Path:
        return self.root / "pgkeep.toml"

    @property
    def account_policies(self) -> Path:
        """What the storage account would do by itself, see local.account_policies."""
        return self.root / "account-policies.json"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def access_key(self) -> Path:
        """What `python -m local token` signs with."""
        return self.root / "access.pem"

    @property
    def host_state(self) -> Path:
        return self.root / "host"

    @property
    def scratch(self) -> Path:
        return self.data / "drills"

    @property
    def wal_socket(self) -> Path:
        """Below `data`, where PostgreSQL's account gets to; a socket's path holds 107 bytes."""
        return self.data / "wal" / "agent.sock"

    @property
    def wal_spool(self) -> Path:
        return self.data / "wal" / "spool"

    @property
    def rescued(self) -> Path:
        """For a server that is restored beside the source."""
        return self.data / "rescued"

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"


@contextmanager
def claimed(root: Path) -> Iterator[StackDirectory]:
    """Empty `root` for a new stack of this process; its data go when the block ends.

    Raises DirectoryNotOurs, StackRuns.
    """
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(root)
    if running_in(root) is not None:
        raise StackRuns(f"a stack runs in {root}")
    _empty(root)
    data = _make_data_directory(root)
    directory = StackDirectory(root, data)
    directory.host_state.mkdir(mode=0o700)
    directory.scratch.mkdir(mode=0o711)
    directory.wal_socket.parent.mkdir(mode=0o711)
    hand_over(directory.scratch, server_account())
    _write(root, data, processes.record(os.getpid()))
    try:
        yield directory
    finally:
        shutil.rmtree(data, ignore_errors=True)
        _write(root, data, None)


def running_in(root: Path) -> ProcessRecord | None:
    """The process that holds a stack in this folder, or None."""
    holder = _read(root).get("holder")
    if not isinstance(holder, dict):
        return None
    process = ProcessRecord(**holder)
    return process if processes.is_running(process) else None


def end(root: Path) -> bool:
    """End the stack in this folder and wait; False when there was none."""
    holder = running_in(root)
    if holder is None:
        return False
    processes.end(holder, _STOP_S)
    return True


def _refuse_foreign(root: Path) -> None:
    names = {path.name for path in root.iterdir()} - {START_LOG}
    if names and _read(root).get("format") != FORMAT:
        raise DirectoryNotOurs(f"{root} holds {min(names)!r} and is no stack's folder")


def _empty(root: Path) -> None:
    """Also the data that a killed stack has left elsewhere."""
    left_over = _read(root).get("data")
    if isinstance(left_over, str):
        shutil.rmtree(left_over, ignore_errors=True)
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != START_LOG:
            path.unlink()


def _make_data_directory(root: Path) -> Path:
    """Below `root`, or, where PostgreSQL's account cannot get there, in the temporary directory."""
    try:
        make_reachable_directory(root / "data", server_account())
    except DirectoryOutOfReach:
        elsewhere = Path(tempfile.mkdtemp(prefix="pgkeep-stack-"))
        make_reachable_directory(elsewhere, server_account())
        return elsewhere
    return root / "data"


def _read(root: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        record = json.loads((root / RECORD).read_text("utf-8"))
        if isinstance(record, dict):
            return record
    return {}


def _write(root: Path, data: Path, holder: ProcessRecord | None) -> None:
    record = {
        "format": FORMAT,
        "data": str(data),
        "holder": None if holder is None else asdict(holder),
    }
    draft = root / f"{RECORD}.new"
    draft.write_text(json.dumps(record, indent=2), "utf-8")
    draft.replace(root / RECORD)
