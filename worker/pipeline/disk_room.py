"""Whether what a plan writes fits on the disk, asked before a byte is written."""

import os
import shutil
from pathlib import Path
from typing import Final

from shared.errors import Refused
from worker.pipeline.file_writer import MARKER

# What st_blocks counts, whatever the blocks of the file system are (stat.2).
_DISK_BLOCK: Final = 512


class DiskTooSmall(Refused):
    """The file system of the target has less room than the plan needs."""

    code = "disk-too-small"
    hint = "Choose a larger disk, or map tablespaces elsewhere with --tablespace-mapping OLD=NEW."


def require_room(target: Path, needed: int) -> None:
    """Raises DiskTooSmall. What an unfinished restore holds there counts as free."""
    existing = next(path for path in (target, *target.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free + unfinished_bytes(target)
    if free < needed:
        raise DiskTooSmall(f"{existing} has {free} bytes free, the restore needs {needed}")


def unfinished_bytes(root: Path) -> int:
    """What clearing an unfinished restore will give back to its disk."""
    if not (root / MARKER).exists():
        return 0
    files = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sum(file.lstat().st_blocks * _DISK_BLOCK for file in files)
