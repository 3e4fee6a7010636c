"""Room for tests with a gigabyte, or a hundred thousand files: a disk would make them slow."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.unprivileged import make_reachable_directory, server_account

_MEMORY_DISK = Path("/dev/shm")
_ROOM = 8 << 30


@pytest.fixture
def roomy_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test alone, in memory where there is enough of it.

    Ask for it before `make_cluster`, whose servers then lie there, too.
    """
    if _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > _ROOM:
        monkeypatch.setattr(tempfile, "tempdir", str(_MEMORY_DISK))
    with tempfile.TemporaryDirectory(prefix="pgkeep-test-") as folder:
        place = Path(folder)
        make_reachable_directory(place, server_account())
        yield place
