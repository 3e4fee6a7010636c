"""What a drill found out, and the report that is made of it."""

from dataclasses import dataclass, field
from datetime import datetime

from shared.domain.drill import (
    Check,
    CheckOutcome,
    DrillPhase,
    TableVerdict,
    drill_verdict,
)
from shared.domain.drill_target import DrillLevel
from shared.domain.recovery_target import ToTime
from shared.errors import PgkeepError
from shared.repository.documents import DrillReport
from shared.version import VERSION
from worker.commands.drill_instant import Instant
from worker.commands.replay import Replayed
from worker.commands.services import Services, Stopwatch


@dataclass(slots=True)
class Findings:
    """What the drill saw so far; a report can be made of it at any time.

    `target` is what was asked for, `instant` what came of it; `replayed` and `heartbeat` are of
    a drill that goes beyond its backup.
    """

    instant: Instant
    target: str | None
    asked_at: datetime
    level: DrillLevel | None = None
    checks: list[Check] = field(default_factory=list)
    tables: tuple[TableVerdict, ...] = ()
    reason: str = ""
    chain: tuple[str, ...] = ()
    restored_bytes: int = 0
    restored_files: int = 0
    postgres: str = ""
    replayed: Replayed | None = None
    heartbeat: datetime | None = None

    def stopped_by(self, error: PgkeepError, outcome: CheckOutcome) -> None:
        self.reason = str(error)
        name = "restore" if not self.checks else "checks"
        self.checks.append(Check(name, outcome, error.fact, 0.0))

    @property
    def newest(self) -> datetime | None:
        """The newest sign of the source's life in the copy."""
        return self.heartbeat or (self.replayed.last_commit if self.replayed else None)


def compose_report(
    services: Services, drill_id: str, watch: Stopwatch, findings: Findings
) -> DrillReport:
    """The report of what is known by now; its phases are what the watch says."""
    stored, planned = findings.instant.stored, findings.instant.planned
    phases = {phase.value: watch.phases.get(phase, 0) for phase in DrillPhase}
    reason = findings.reason or _reason(findings.checks)
    note = findings.instant.note
    replayed = findings.replayed
    fetched = replayed.fetched if replayed else None
    return DrillReport(
        id=drill_id,
        cluster=stored.document.cluster,
        label=stored.document.label,
        document_digest=stored.digest,
        created_at=services.clocks.now(),
        verdict=drill_verdict(findings.checks),
        reason=f"{note}; {reason}" if note else reason,
        phases_ms=phases,
        # The time until somebody could work again: checks are for us, not for them.
        rto_ms=sum(ms for phase, ms in phases.items() if phase != DrillPhase.CHECKS),
        restored_bytes=findings.restored_bytes,
        restored_files=findings.restored_files,
        postgres=findings.postgres,
        checks=tuple(findings.checks),
        tables=findings.tables,
        tool=f"pgkeep {VERSION}",
        target=_asked(findings),
        timeline=planned.plan.timeline if planned else None,
        reached_lsn=replayed.lsn if replayed else None,
        reached_time=replayed.last_commit if replayed else None,
        replayed_bytes=replayed.bytes if replayed else 0,
        wal_segments=fetched.segments if fetched else 0,
        wal_waited_ms=round(fetched.waited_s * 1000) if fetched else 0,
        rpo_ms=_lost_ms(findings.newest, _disaster(findings)),
        chain=findings.chain if len(findings.chain) > 1 else (),
        level=findings.level,
        from_secondary=services.elsewhere is not None,
        last_sync_time=services.elsewhere and services.elsewhere.last_sync_time,
    )


def _asked(findings: Findings) -> str | None:
    """`random (time 2026-11-22T10:00:00.000000Z)`: the word, and what it came to."""
    planned = findings.instant.planned
    if findings.target is None or planned is None:
        return findings.target
    return f"{findings.target} ({planned.plan.target})"


def _disaster(findings: Findings) -> datetime | None:
    """The instant at which the source is supposed lost; None for a backup alone.

    Of a drill to the latest instant: when the replay met the end of the archive, which grows while
    the drill restores.
    """
    planned = findings.instant.planned
    if planned is None:
        return None
    target, replayed = planned.plan.target, findings.replayed
    if isinstance(target, ToTime):
        return target.time
    fetched = replayed.fetched if replayed else None
    return (fetched.end_seen_at if fetched else None) or findings.asked_at


def _lost_ms(newest: datetime | None, disaster: datetime | None) -> int | None:
    if newest is None or disaster is None:
        return None
    # Clocks of two hosts: one that is ahead has lost nothing.
    return max(0, round((disaster - newest).total_seconds() * 1000))


def _reason(checks: list[Check]) -> str:
    bad = [
        f"{check.name}: {check.detail}"
        for check in checks
        if check.outcome in {CheckOutcome.FAILED, CheckOutcome.INCONCLUSIVE}
    ]
    passed = sum(check.outcome is CheckOutcome.PASSED for check in checks)
    return "; ".join(bad) or f"{passed} checks passed"
