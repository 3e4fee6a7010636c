"""Planning a recovery without being able to do it: nothing is decrypted, nothing is changed.

Backup documents are signed and in the clear, and names and metadata tell what the archive holds.
Histories of timelines are sealed, so a way across a promotion is left to `pgkeep restore --dry-run`
on a host that has the keys.
"""

from dataclasses import dataclass
from typing import Final

from functions.wiring import Services
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.recovery_path import BackupCandidate
from shared.domain.recovery_plan import (
    RecoveryPlan,
    RecoveryWindow,
    TargetUnreachable,
    recovery_windows,
)
from shared.domain.recovery_target import (
    RecoveryTarget,
    ToImmediate,
    ToLatest,
    ToTime,
    parse_time,
)
from shared.domain.wal_inventory import ListedArchive
from shared.errors import Refused
from shared.repository.known_backups import KnownBackups, read_known_backups
from shared.repository.wal_listing import list_archive

_THREADS: Final = 4
# Listed and weighed within the 230 s that Azure's load balancer gives an answer, and in memory.
SEGMENTS_AT_MOST: Final = 100_000


class PlanTooLarge(Refused):
    """More WAL than a request can weigh."""

    code = "plan-too-large"
    hint = "Name a newer backup, or use `pgkeep restore --dry-run` on a host with the keys."


@dataclass(frozen=True, slots=True)
class Weighed:
    """`plan` None: the target is out of reach, as `refused` tells; `nearest` is what is not."""

    plan: RecoveryPlan | None
    windows: tuple[RecoveryWindow, ...]
    unweighed_timelines: tuple[int, ...]
    refused: str | None = None
    nearest: str | None = None


def weigh(services: Services, cluster: ClusterName, label: str | None, to: str) -> Weighed:
    """Raises BackupNotFound, PlanTooLarge, and what reading the repository raises."""
    known = read_known_backups(services.store, services.pinned, cluster, label, threads=_THREADS)
    eligible = [item for item in known.candidates if label in {None, item.label}]
    archive = _listed(services, cluster, eligible)
    return _weighed(known, archive, goal(to), label)


def goal(to: str) -> RecoveryTarget:
    """`latest`, `immediate`, or an instant with its offset."""
    match to:
        case "latest":
            return ToLatest()
        case "immediate":
            return ToImmediate()
        case _:
            return ToTime(parse_time(to))


def _weighed(
    known: KnownBackups, archive: ListedArchive, target: RecoveryTarget, label: str | None
) -> Weighed:
    windows = recovery_windows(known.candidates, archive)
    own = {1, *(item.timeline for item in known.candidates)}
    others = tuple(sorted({item.timeline for item in archive.items} - own))
    try:
        plan = known.plan(archive, target, label=label, timeline=None)
    except TargetUnreachable as error:
        return Weighed(None, windows, others, error.fact, error.advice)
    return Weighed(plan, windows, others)


def _listed(
    services: Services, cluster: ClusterName, eligible: list[BackupCandidate]
) -> ListedArchive:
    timeline = min(item.timeline for item in eligible)
    start = min(item.start_lsn for item in eligible)
    size = eligible[0].segment_size
    _refuse_too_much(services, cluster, start, size)
    return list_archive(
        services.store, cluster, segment_size=size, since=(timeline, start), read_history=None
    )


def _refuse_too_much(
    services: Services, cluster: ClusterName, start: Lsn, segment_size: int
) -> None:
    """By what was last seen of the archive, so that a long listing is not even begun."""
    snapshot = services.catalogue.archive_snapshot(cluster)
    ranges = snapshot.ranges if snapshot else ()
    held = sum(max(0, one.end - max(one.start, start)) for one in ranges)
    if held // segment_size > SEGMENTS_AT_MOST:
        raise PlanTooLarge(
            f"{held // segment_size} segments of WAL lie behind {start}, over {SEGMENTS_AT_MOST}"
        )
