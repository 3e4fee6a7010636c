"""What the five-minute look sees, as gauges: of each cluster, and of the repository as a whole.

Nothing is read for their sake but the open findings. A cluster has ten series at most, and one more
for each kind of finding that is open: ten thousand clusters are a hundred thousand rows a look.
"""

from collections import Counter
from datetime import datetime
from typing import Final

from functions.wiring import Services
from shared.catalogue.fleet_port import FleetMember
from shared.domain.finding_rules import RULES
from shared.domain.findings import REPOSITORY
from shared.domain.rto_prediction import RtoPrediction
from shared.settings import ClusterSettings
from shared.telemetry.meters import Telemetry
from shared.telemetry.metric_names import (
    BACKUP_AGE,
    FINDINGS,
    GEO_LAG,
    RPO,
    RTO,
    STORAGE_USED,
    STORAGE_USED_RATIO,
    WAL_LAG,
    WAL_UNARCHIVED,
)

_MS: Final = 1000


def record_member(
    telemetry: Telemetry,
    cluster: ClusterSettings,
    member: FleetMember,
    prediction: RtoPrediction | None,
    now: datetime,
) -> None:
    """What is not known has no value: an age of nothing would look young."""
    name, ages = cluster.name, member.ages
    for fact, at in {
        "committed": ages.committed_at,
        "verified": ages.verified_at,
        "proven": ages.proven_at,
        "geo-safe": member.geo_safe_at,
    }.items():
        if at is not None:
            telemetry.record(BACKUP_AGE, _seconds(at, now), cluster=name, fact=fact)
    if member.wal is not None and member.wal.in_use:
        lag = _seconds(member.wal.unprotected_since, now)
        telemetry.record(WAL_LAG, lag, cluster=name)
        telemetry.record(RPO, lag, cluster=name)
        if member.wal.unarchived_bytes is not None:
            telemetry.record(WAL_UNARCHIVED, member.wal.unarchived_bytes, cluster=name)
    elif ages.committed_at is not None:  # without WAL, all since the newest backup is lost
        telemetry.record(RPO, _seconds(ages.committed_at, now), cluster=name)
    if member.drills:
        measured = member.drills[0].rto_ms / _MS
        telemetry.record(RTO, measured, cluster=name, kind="measured")
    if prediction is not None:
        telemetry.record(RTO, prediction.seconds, cluster=name, kind="predicted")
    record_storage(telemetry, name, member.used_bytes, cluster.storage.budget_bytes)


def record_storage(telemetry: Telemetry, cluster: str, used: int, budget: int | None) -> None:
    """A share only where there is a budget."""
    telemetry.record(STORAGE_USED, used, cluster=cluster)
    if budget is not None:
        telemetry.record(STORAGE_USED_RATIO, used / budget, cluster=cluster)


def record_replication(telemetry: Telemetry, reached: datetime | None, now: datetime) -> None:
    """`reached` is the Last Sync Time."""
    if reached is not None:
        telemetry.record(GEO_LAG, _seconds(reached, now))


def record_findings(services: Services) -> None:
    """How many of each kind are open; of those that nobody has, none: that is not silence."""
    counts = Counter(
        (recorded.cluster, recorded.finding.code) for recorded in services.catalogue.findings()
    )
    missing = RULES.keys() - {code for _, code in counts}
    for cluster, code in [*counts, *((REPOSITORY, code) for code in sorted(missing))]:
        services.telemetry.record(
            FINDINGS,
            counts[cluster, code],
            cluster=cluster,
            code=code.value,
            severity=RULES[code].severity.value,
        )


def _seconds(since: datetime, now: datetime) -> float:
    """Never less than 0: the clocks of servers differ."""
    return max(0.0, (now - since).total_seconds())
