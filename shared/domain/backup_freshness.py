"""How old what protects a cluster may be, and what is said when it is older."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding
from shared.domain.freshness import WalFreshness

# What is due once a day is never committed to the minute.
_GRACE: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class BackupAges:
    """Of one cluster: when its newest backup was committed, when its newest verified one was, and
    when a drill passed last. `first_seen`: when the function app first looked at it.
    """

    cluster: ClusterName
    first_seen: datetime
    committed_at: datetime | None = None
    verified_at: datetime | None = None
    proven_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Promises:
    """None: nothing is promised. `rpo` counts for clusters whose WAL is archived."""

    committed: timedelta | None
    verified: timedelta | None
    proven: timedelta | None
    rpo: timedelta


def promised_age(objective: timedelta, gap: timedelta | None) -> timedelta | None:
    """What a schedule with ticks `gap` apart can keep; None where nothing is scheduled."""
    return None if gap is None else max(objective, gap + _GRACE)


def backup_findings(ages: BackupAges, promises: Promises, now: datetime) -> tuple[Finding, ...]:
    """In a stable order. A cluster that is new has as much time as an old backup would."""
    return tuple(
        finding
        for code, what, at, allowed in (
            (FindingCode.BACKUP_OVERDUE, "backup", ages.committed_at, promises.committed),
            (FindingCode.VERIFICATION_OVERDUE, "verified backup", ages.verified_at,
             promises.verified),
            (FindingCode.PROOF_OVERDUE, "passed drill", ages.proven_at, promises.proven),
        )
        for finding in _overdue(code, what, at, allowed, ages.first_seen, now)
    )  # fmt: skip


def rpo_findings(seen: WalFreshness | None, promises: Promises, now: datetime) -> Iterator[Finding]:
    """A broken recovery point objective, by the newest look at the archive."""
    if seen is None or not seen.in_use:
        return
    lag = now - seen.unprotected_since
    if lag <= promises.rpo:
        return
    fact = (
        f"commits since {_instant(seen.unprotected_since)} would be lost with the server: "
        f"{_span(lag)}, promised are {_span(promises.rpo)}"
    )
    evidence = {
        "lag_seconds": str(int(lag.total_seconds())),
        "rpo_seconds": str(int(promises.rpo.total_seconds())),
    }
    yield Finding(FindingCode.RPO_BROKEN, "wal", seen.unprotected_since, fact, evidence)


def _overdue(
    code: FindingCode,
    what: str,
    at: datetime | None,
    allowed: timedelta | None,
    first_seen: datetime,
    now: datetime,
) -> Iterator[Finding]:
    if allowed is None or now - (at or first_seen) <= allowed:
        return
    newest = f"the newest {what} is of {_instant(at)}" if at else f"there is no {what}"
    age = now - (at or first_seen)
    fact = f"{newest}: {_span(age)} without one, promised are {_span(allowed)}"
    evidence = {
        "newest": at.isoformat() if at else "none",
        "age_hours": f"{age / timedelta(hours=1):.1f}",
        "promised_hours": f"{allowed / timedelta(hours=1):.1f}",
    }
    yield Finding(code, what, (at or first_seen) + allowed, fact, evidence)


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _span(duration: timedelta) -> str:
    """`90 s`, `45 min`, `26 h`, `8 days`: in the largest unit of which there are two."""
    for unit, word in (
        (timedelta(days=1), "days"),
        (timedelta(hours=1), "h"),
        (timedelta(minutes=1), "min"),
    ):
        if duration >= 2 * unit:
            return f"{duration / unit:.0f} {word}"
    return f"{duration.total_seconds():.0f} s"
