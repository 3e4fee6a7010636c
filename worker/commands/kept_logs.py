"""Logs of restored servers that did not do as they should: kept for a while, and not for ever.

They lie in `<scratch>/<token>-logs`, beside a marker that makes the directory ours. The next drill
or recovery removes what is too old or too much; what has no marker, or is a link, is left alone.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from shared.event_log import log_event
from worker.postgres.scratch import Scratch, read_tail

MARKER: Final = "pgkeep-logs.json"
KEPT_FOR: Final = timedelta(days=14)  # who is on call looks within a fortnight
KEPT_DIRECTORIES: Final = 20
KEPT_BYTES: Final = 64 << 20  # of all directories together
LOG_BYTES: Final = 4 << 20  # of one log: how it ended stands at its end
_SUFFIX: Final = "-logs"


@dataclass(frozen=True, slots=True)
class _Kept:
    created: datetime
    directory: Path
    size: int


def keep_logs(scratch: Scratch, root: Path, now: datetime) -> Path | None:
    """Copy the ends of its logs to where they outlive it; None when there are none. Never fails:
    it is called while an error is on its way.
    """
    place = root / f"{scratch.directory.name}{_SUFFIX}"
    try:
        logs = [log for log in scratch.directory.glob("*.log") if not log.is_symlink()]
        if not logs:
            return None
        place.mkdir(mode=0o700)
        (place / MARKER).write_text(json.dumps({"created": now.isoformat()}), "utf-8")
        for log in logs:
            with suppress(OSError):  # what the server replaced is nothing to copy
                (place / log.name).write_bytes(read_tail(log, LOG_BYTES))
    except OSError as error:
        log_event("logs-not-kept", level=logging.WARNING, directory=str(place), fact=str(error))
        return None
    return place


def sweep_logs(root: Path, now: datetime) -> int:
    """Remove all but the newest logs; how many directories went. Never fails."""
    swept = total = 0
    newest_first = sorted(_kept(root), key=lambda one: (one.created, one.directory), reverse=True)
    for number, one in enumerate(newest_first):
        total += one.size
        stays = number < KEPT_DIRECTORIES and total <= KEPT_BYTES
        if stays and now - one.created <= KEPT_FOR:
            continue
        with suppress(OSError):  # somebody else's files in it, or another sweep was quicker
            _remove(one.directory)
            swept += 1
    if swept:
        log_event("logs-swept", directories=swept)
    return swept


def _kept(root: Path) -> Iterator[_Kept]:
    for directory in root.glob(f"*{_SUFFIX}"):
        try:
            if directory.is_symlink():
                continue
            created = json.loads(read_tail(directory / MARKER, 4096))["created"]
            size = sum(file.lstat().st_size for file in directory.iterdir())
            yield _Kept(datetime.fromisoformat(created), directory, size)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no marker of ours: not ours to delete


def _remove(directory: Path) -> None:
    """The marker last: what a sweep that was killed leaves is still ours."""
    for log in directory.glob("*.log"):
        log.unlink()
    if os.listdir(directory) == [MARKER]:  # noqa: PTH208 - names are all that is asked for
        (directory / MARKER).unlink()
    directory.rmdir()
