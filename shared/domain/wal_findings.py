"""What is wrong with a cluster's WAL, as findings of the scope `wal`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding
from shared.domain.freshness import SlotState, WalFreshness, WalGap

# Whoever is refused tries again: PostgreSQL's archiver each minute, a receiver sooner. After an
# hour of silence nobody tries any more.
CONFLICT_STANDS: Final = timedelta(hours=1)
# Segments in flight become durable in any order (W19): a hole that stays is a gap.
GAP_SETTLES: Final = timedelta(minutes=2)
_LOST: Final = "lost"  # pg_replication_slots.wal_status


@dataclass(frozen=True, slots=True)
class SeenConflict:
    """Somebody offered another content under a name that the archive has."""

    at: datetime
    writer: str
    host: str
    name: str


def findings(
    seen: WalFreshness, conflicts: Sequence[SeenConflict], behind: timedelta
) -> tuple[Finding, ...]:
    """All that is wrong at the time of the freshness, in a stable order."""
    return (*_lateness(seen, behind), *troubles(seen, conflicts), *_of_slot(seen))


def troubles(seen: WalFreshness, conflicts: Sequence[SeenConflict]) -> tuple[Finding, ...]:
    """Those that a writer's report reveals at once: gaps and conflicts."""
    gaps = (_gap(gap) for gap in seen.gaps if _is_settled(gap, seen.at))
    return (*gaps, *_duplicate_writer(conflicts, seen.at))


def _lateness(seen: WalFreshness, behind: timedelta) -> Iterator[Finding]:
    late = seen.at - seen.unprotected_since
    if seen.in_use and late > behind:
        fact = (
            f"commits since {_instant(seen.unprotected_since)} are not protected: "
            f"{_seconds(late)}, more than {_seconds(behind)}; {_positions(seen)}"
        )
        yield Finding(FindingCode.BEHIND, "archive", seen.unprotected_since, fact)
    if seen.reported_at and seen.at - seen.reported_at > behind:
        fact = (
            f"no writer has reported since {_instant(seen.reported_at)}, "
            f"{_seconds(seen.at - seen.reported_at)} ago"
        )
        yield Finding(FindingCode.UNREPORTED, "writers", seen.reported_at, fact)


def _is_settled(gap: WalGap, at: datetime) -> bool:
    return gap.reported or at - gap.since >= GAP_SETTLES


def _gap(gap: WalGap) -> Finding:
    fact = f"the wal of timeline {gap.timeline} from {gap.start} to {gap.end} is not in the archive"
    return Finding(FindingCode.GAP, str(gap), gap.since, fact)


def _duplicate_writer(conflicts: Sequence[SeenConflict], at: datetime) -> Iterator[Finding]:
    """One, whatever number of segments are refused."""
    fresh = [one for one in conflicts if at - one.at <= CONFLICT_STANDS]
    if fresh:
        newest = max(fresh, key=lambda one: (one.at, one.name))
        fact = (
            f"{newest.writer} on {newest.host} offered another {newest.name} than the archive "
            f"holds, last at {_instant(newest.at)}"
        )
        since = min(one.at for one in fresh)
        yield Finding(FindingCode.DUPLICATE_WRITER, "archive", since, fact)


def _of_slot(seen: WalFreshness) -> Iterator[Finding]:
    slot, at = seen.slot, seen.reported_at
    if slot is None or at is None:
        return
    if slot.wal_status == _LOST:
        fact = f"the server has dropped wal that replication slot {slot.name} needed"
        yield Finding(FindingCode.SLOT_LOST, _named(slot), at, fact)
    if slot.keep_bytes is None:
        fact = f"nothing limits the wal that replication slot {slot.name} keeps on the server"
        yield Finding(FindingCode.SLOT_UNLIMITED, _named(slot), at, fact)


def _named(slot: SlotState) -> str:
    return f"slot {slot.name}"


def _positions(seen: WalFreshness) -> str:
    archive = (
        f"the archive reaches {seen.through_lsn}" if seen.through_lsn else "nothing is archived"
    )
    server = f", the server is at {seen.server_lsn}" if seen.server_lsn else ""
    return f"{archive}{server}"


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _seconds(duration: timedelta) -> str:
    return f"{int(duration.total_seconds())} s"
