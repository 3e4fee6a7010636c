"""What is wrong with a cluster's WAL: opened once when it is found, closed when it is gone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from shared.domain.freshness import SlotState, WalFreshness, WalGap

# Whoever is refused tries again: PostgreSQL's archiver each minute, a receiver sooner. After an
# hour of silence nobody tries any more.
CONFLICT_STANDS: Final = timedelta(hours=1)
# Segments in flight become durable in any order (W19): a hole that stays is a gap.
GAP_SETTLES: Final = timedelta(minutes=2)
_LOST: Final = "lost"  # pg_replication_slots.wal_status


class FindingCode(StrEnum):
    """Stable; docs/reference/http-api.md explains each."""

    BEHIND = "wal-behind"
    GAP = "wal-gap"
    DUPLICATE_WRITER = "wal-duplicate-writer"
    SLOT_LOST = "wal-slot-lost"
    SLOT_UNLIMITED = "wal-slot-unlimited"
    UNREPORTED = "wal-unreported"


_ACTIONS: Final = {
    FindingCode.BEHIND: "Look at the log of the receiver or agent, and at the room in pg_wal: "
    "docs/runbooks/wal-behind.md.",
    FindingCode.GAP: "Take a backup now, then look for the missing segments: "
    "docs/runbooks/wal-gap.md.",
    FindingCode.DUPLICATE_WRITER: "Find the second server that writes into this archive: "
    "docs/runbooks/wal-duplicate-writer.md.",
    FindingCode.SLOT_LOST: "Take a backup now; the receiver makes a new slot: "
    "docs/runbooks/wal-gap.md.",
    FindingCode.SLOT_UNLIMITED: "Set max_slot_wal_keep_size: a receiver that stays away would fill "
    "the server's disk.",
    FindingCode.UNREPORTED: "Start the receiver or agent, or look why its reports do not arrive: "
    "docs/runbooks/wal-behind.md.",
}


@dataclass(frozen=True, slots=True)
class WalFinding:
    """`object` tells findings of one code apart; `fact` may change while the finding stays open."""

    code: FindingCode
    object: str
    since: datetime
    fact: str

    @property
    def action(self) -> str:
        """What to do next, one sentence."""
        return _ACTIONS[self.code]

    @property
    def key(self) -> tuple[str, str]:
        return self.code.value, self.object


@dataclass(frozen=True, slots=True)
class SeenConflict:
    """Somebody offered another content under a name that the archive has."""

    at: datetime
    writer: str
    host: str
    name: str


@dataclass(frozen=True, slots=True)
class FindingChanges:
    """`opened` and `closed` are news; `kept` were open, and say today's fact."""

    opened: tuple[WalFinding, ...] = ()
    kept: tuple[WalFinding, ...] = ()
    closed: tuple[WalFinding, ...] = ()


def fold_findings(known_open: Iterable[WalFinding], found: Iterable[WalFinding]) -> FindingChanges:
    """A finding stays the same as long as code and object do, and keeps its first `since`."""
    before = {finding.key: finding for finding in known_open}
    after = {finding.key: finding for finding in found}
    return FindingChanges(
        opened=tuple(one for key, one in after.items() if key not in before),
        kept=tuple(
            WalFinding(one.code, one.object, before[key].since, one.fact)
            for key, one in after.items()
            if key in before
        ),
        closed=tuple(one for key, one in before.items() if key not in after),
    )


def findings(
    seen: WalFreshness, conflicts: Sequence[SeenConflict], behind: timedelta
) -> tuple[WalFinding, ...]:
    """All that is wrong at the time of the freshness, in a stable order."""
    return (*_lateness(seen, behind), *troubles(seen, conflicts), *_of_slot(seen))


def troubles(seen: WalFreshness, conflicts: Sequence[SeenConflict]) -> tuple[WalFinding, ...]:
    """Those that a writer's report reveals at once: gaps and conflicts."""
    gaps = (_gap(gap) for gap in seen.gaps if _is_settled(gap, seen.at))
    return (*gaps, *_duplicate_writer(conflicts, seen.at))


def _lateness(seen: WalFreshness, behind: timedelta) -> Iterator[WalFinding]:
    late = seen.at - seen.unprotected_since
    if seen.in_use and late > behind:
        fact = (
            f"commits since {_instant(seen.unprotected_since)} are not protected: "
            f"{_seconds(late)}, more than {_seconds(behind)}; {_positions(seen)}"
        )
        yield WalFinding(FindingCode.BEHIND, "archive", seen.unprotected_since, fact)
    if seen.reported_at and seen.at - seen.reported_at > behind:
        fact = (
            f"no writer has reported since {_instant(seen.reported_at)}, "
            f"{_seconds(seen.at - seen.reported_at)} ago"
        )
        yield WalFinding(FindingCode.UNREPORTED, "writers", seen.reported_at, fact)


def _is_settled(gap: WalGap, at: datetime) -> bool:
    return gap.reported or at - gap.since >= GAP_SETTLES


def _gap(gap: WalGap) -> WalFinding:
    fact = f"the wal of timeline {gap.timeline} from {gap.start} to {gap.end} is not in the archive"
    return WalFinding(FindingCode.GAP, str(gap), gap.since, fact)


def _duplicate_writer(conflicts: Sequence[SeenConflict], at: datetime) -> Iterator[WalFinding]:
    """One, whatever number of segments are refused."""
    fresh = [one for one in conflicts if at - one.at <= CONFLICT_STANDS]
    if fresh:
        newest = max(fresh, key=lambda one: (one.at, one.name))
        fact = (
            f"{newest.writer} on {newest.host} offered another {newest.name} than the archive "
            f"holds, last at {_instant(newest.at)}"
        )
        since = min(one.at for one in fresh)
        yield WalFinding(FindingCode.DUPLICATE_WRITER, "archive", since, fact)


def _of_slot(seen: WalFreshness) -> Iterator[WalFinding]:
    slot, at = seen.slot, seen.reported_at
    if slot is None or at is None:
        return
    if slot.wal_status == _LOST:
        fact = f"the server has dropped wal that replication slot {slot.name} needed"
        yield WalFinding(FindingCode.SLOT_LOST, _named(slot), at, fact)
    if slot.keep_bytes is None:
        fact = f"nothing limits the wal that replication slot {slot.name} keeps on the server"
        yield WalFinding(FindingCode.SLOT_UNLIMITED, _named(slot), at, fact)


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
