"""From when to when a cluster can be recovered: stretches of log that begin with a backup."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from shared.domain.lsn import Lsn
from shared.domain.recovery_path import BackupCandidate, Reach, Ways
from shared.domain.recovery_stop import last_commit
from shared.domain.wal_inventory import ListedArchive


@dataclass(frozen=True, slots=True)
class RecoveryWindow:
    """On the way to `timeline`, every position from `start` to `end` can be reached.

    It begins where the first of `backups` (labels, oldest first) ended, at `started_at` by the
    worker's clock. `last_commit` is the last that is known of, by the server's clock; there may be
    none behind the backup. `broken` when the archive holds more of the timeline, behind a gap.
    """

    timeline: int
    start: Lsn
    started_at: datetime
    end: Lsn
    last_commit: datetime | None
    backups: tuple[str, ...]
    broken: bool = False


def recovery_windows(
    backups: Sequence[BackupCandidate], archive: ListedArchive
) -> tuple[RecoveryWindow, ...]:
    """By timeline and position. Suspect backups count only when there are no others."""
    good = [backup for backup in backups if not backup.suspect] or backups
    return windows_on(Ways.of(archive, good), good)


def windows_on(ways: Ways, backups: Sequence[BackupCandidate]) -> tuple[RecoveryWindow, ...]:
    """Only of timelines of which there is a backup, or log behind a backup."""
    every = (_reaches(ways, backups, timeline) for timeline in sorted(ways.paths))
    entered = (reaches for reaches in every if any(reach.enters_timeline for reach in reaches))
    return tuple(window for reaches in entered for window in _windows(ways, reaches))


def window_of(ways: Ways, backups: Sequence[BackupCandidate], chosen: Reach) -> RecoveryWindow:
    """The one that `chosen`, of one of the backups, lies in."""
    found = _windows(ways, _reaches(ways, backups, chosen.timeline))
    return next(window for window in found if chosen.backup.label in window.backups)


def _reaches(ways: Ways, backups: Sequence[BackupCandidate], timeline: int) -> list[Reach]:
    ordered = sorted(backups, key=lambda backup: (backup.stop_lsn, backup.label))
    found = [ways.reach(backup, timeline) for backup in ordered]
    return [reach for reach in found if isinstance(reach, Reach)]


def _windows(ways: Ways, reaches: Sequence[Reach]) -> Iterator[RecoveryWindow]:
    for _, of_end in groupby(reaches, key=lambda reach: reach.end):
        yield _window(ways, list(of_end))


def _window(ways: Ways, reaches: Sequence[Reach]) -> RecoveryWindow:
    """Of backups between which nothing is missing: they reach equally far."""
    first = reaches[0]
    return RecoveryWindow(
        first.timeline,
        first.backup.stop_lsn,
        first.backup.finished_at,
        first.end,
        last_commit(first, ways.logs),
        tuple(reach.backup.label for reach in reaches),
        broken=reaches[-1].gap is not None,
    )
