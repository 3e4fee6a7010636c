"""PostgreSQL's file `backup_label`: where a backup starts, and what it builds on.

With the two lines that name the backup before it, a server refuses to start (xlogrecovery.c,
read_backup_label): what a chain makes is a backup in its own right and has to lose them, as
pg_combinebackup's result does. Nothing else of the file may change.
"""

import re
from dataclasses import dataclass
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import Corrupt

BACKUP_LABEL: Final = b"backup_label"
# A label of less than 1024 bytes (MAXPGPATH) and eight short lines; PostgreSQL's own programs stop
# at 10,000 bytes (pg_combinebackup.c, check_backup_label_files).
SIZE_LIMIT: Final = 10_000

_START_LSN: Final = b"START WAL LOCATION"
_START_TIMELINE: Final = b"START TIMELINE"
_FROM_LSN: Final = b"INCREMENTAL FROM LSN"
_FROM_TIMELINE: Final = b"INCREMENTAL FROM TLI"
_READ: Final = {_START_LSN, _START_TIMELINE, _FROM_LSN, _FROM_TIMELINE}
# Where the backup itself starts, the file of that place follows.
_LOCATION: Final = re.compile(rb"([0-9A-F]{1,8}/[0-9A-F]{1,8})(?: \(file [0-9A-F]{24}\))?")
_TIMELINE: Final = re.compile(rb"[1-9][0-9]{0,9}")


class BackupLabelFileInvalid(Corrupt):
    """A backup_label that PostgreSQL did not write."""

    code = "backup-label-file-invalid"


@dataclass(frozen=True, slots=True)
class BackupStart:
    """A place in the WAL at which some backup starts."""

    lsn: Lsn
    timeline: int

    def __str__(self) -> str:
        return f"{self.lsn} on timeline {self.timeline}"


@dataclass(frozen=True, slots=True)
class BackupLabelFile:
    """`parent` is where the backup starts that an incremental one builds on."""

    start: BackupStart
    parent: BackupStart | None


def parse_backup_label(raw: bytes) -> BackupLabelFile:
    """Raises BackupLabelFileInvalid, and nothing else, for whatever PostgreSQL did not write."""
    if len(raw) > SIZE_LIMIT:
        raise BackupLabelFileInvalid(f"backup_label has {len(raw)} bytes, more than {SIZE_LIMIT}")
    if not raw.endswith(b"\n"):
        raise BackupLabelFileInvalid("backup_label does not end in a newline")
    found: dict[bytes, bytes] = {}
    for line in raw[:-1].split(b"\n"):
        name, colon, value = line.partition(b": ")
        if not colon:
            raise BackupLabelFileInvalid(f"backup_label holds the line {line[:80]!r}")
        if name in _READ and name in found:
            raise BackupLabelFileInvalid(f"backup_label holds two lines {name.decode()}")
        found[name] = value
    start = _start(found, _START_LSN, _START_TIMELINE)
    if not found.keys() & {_FROM_LSN, _FROM_TIMELINE}:
        return BackupLabelFile(start, None)
    return BackupLabelFile(start, _start(found, _FROM_LSN, _FROM_TIMELINE))


def without_parent(raw: bytes) -> bytes:
    """The same file without the two lines that make it an incremental backup's."""
    lines = raw.split(b"\n")
    kept = (line for line in lines if line.partition(b": ")[0] not in {_FROM_LSN, _FROM_TIMELINE})
    return b"\n".join(kept)


def _start(found: dict[bytes, bytes], lsn: bytes, timeline: bytes) -> BackupStart:
    location = _LOCATION.fullmatch(found.get(lsn, b""))
    number = _TIMELINE.fullmatch(found.get(timeline, b""))
    if location is None or number is None:
        raise BackupLabelFileInvalid(
            f"backup_label has no valid {lsn.decode()} and {timeline.decode()}"
        )
    return BackupStart(Lsn.parse(location[1].decode()), int(number[0]))
