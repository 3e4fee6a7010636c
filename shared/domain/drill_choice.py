"""Which backup an extended drill restores: an older one, drawn by lot.

The newest is drilled each week. What nobody has restored since it was taken is only believed, so
once a month one of the others has its turn. The lot is the drill's own id: whoever makes the job
again draws the same, and whoever reads the report can draw again.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from shared.domain.backup import BackupLabel
from shared.domain.drill_target import chance_of, one_of
from shared.domain.needed_until import GuardedBackup, RetentionTerms, needed_backups

# Longer than any drill: what expires beneath one would look damaged.
_STAYS_FOR: Final = timedelta(days=2)


def older_backups(
    backups: Iterable[GuardedBackup], terms: RetentionTerms, now: datetime, newest: BackupLabel
) -> list[BackupLabel]:
    """Before `newest`, sound with all that they build on, kept for long enough; oldest first."""
    known = {one.label: one for one in backups}
    return [
        needed.backup.label
        for needed in needed_backups(known.values(), terms, now)
        if needed.backup.label < newest
        and (needed.until is None or needed.until > now + _STAYS_FOR)
        and _is_sound(known, needed.backup)
    ]


def drawn(labels: Sequence[BackupLabel], drill_id: str) -> BackupLabel:
    """Each as likely as any other."""
    return labels[one_of(len(labels), chance_of(drill_id, "backup"))]


def _is_sound(known: Mapping[BackupLabel, GuardedBackup], backup: GuardedBackup) -> bool:
    """All of its chain is; parents that nobody knows, or somebody made up in a circle, are not."""
    seen: set[BackupLabel] = set()
    link: GuardedBackup | None = backup
    while link is not None and link.good and link.label not in seen:
        if link.parent is None:
            return True
        seen.add(link.label)
        link = known.get(link.parent)
    return False
