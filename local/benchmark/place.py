"""Where a benchmark runs: its folders, the means that all contenders have, fresh emulators."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.azurite import Azurite, EmulatedAccount
from local.postgres_initdb import clean_environment
from local.postgres_server import PostgresServer
from local.unprivileged import Account, hand_over, make_reachable_directory, server_account

# What every contender is told, so that they do the same work with the same means.
COMPRESSION_LEVEL = 1
PARALLEL = 2

_RAM_DISK = Path("/dev/shm")  # noqa: S108 - tmpfs of every Linux; a private folder is made in it
# What all contenders together may keep in the emulator at one time, beyond any size that we test.
_EMULATOR_MB_PER_GB = 1_500


@dataclass(frozen=True, slots=True)
class Place:
    """`fast` is a folder on a RAM disk where there is one; both are deleted at the end."""

    work: Path
    fast: Path
    account: Account | None

    @property
    def on_ram_disk(self) -> bool:
        return self.fast.is_relative_to(_RAM_DISK)

    def folder(self, name: str) -> Path:
        """A new folder below `work`, for one run, that PostgreSQL's account owns."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))
        hand_over(path, self.account)
        return path

    @contextmanager
    def target(self, name: str) -> Iterator[Path]:
        """A path on the RAM disk to write to; what is there afterwards is deleted."""
        parent = _owned(self.fast / name, self.account)
        try:
            yield parent / "data"
        finally:
            shutil.rmtree(parent)


@contextmanager
def benchmark_place() -> Iterator[Place]:
    """Private folders for one run."""
    account = server_account()
    ram = _RAM_DISK if os.access(_RAM_DISK, os.W_OK) else Path(tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(prefix="pgkeep-benchmark-") as work,
        tempfile.TemporaryDirectory(prefix="pgkeep-benchmark-", dir=ram) as fast,
    ):
        for path in (Path(work), Path(fast)):
            make_reachable_directory(path, account)
        yield Place(Path(work), Path(fast), account)


@contextmanager
def fresh_emulator(size_bytes: int) -> Iterator[tuple[EmulatedAccount, int]]:
    """An empty Azurite over HTTPS with all of its blobs in memory, and its pid."""
    room = 512 + _EMULATOR_MB_PER_GB * size_bytes // 10**9
    with Azurite(None, https=True, memory_limit_mb=room) as azurite:
        yield azurite.account(azurite.account_name), azurite.pid


def environment(**extra: str) -> Mapping[str, str]:
    """Ours, without what changes PostgreSQL's programs or keeps Python from caching bytecode."""
    inherited = clean_environment()
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**inherited, **extra}


def server_pids(source: PostgresServer, azurite: int | None = None) -> dict[str, int]:
    found = {"postgres": source.pid}
    return found if azurite is None else {**found, "azurite": azurite}


def _owned(path: Path, account: Account | None) -> Path:
    path.mkdir(mode=0o700)
    hand_over(path, account)
    return path
