"""What committed documents and stored reports say, as metrics: the same numbers, in other units."""

from typing import Final

from shared.domain.drill import DrillVerdict
from shared.repository.documents import BackupDocument, DrillReport
from shared.telemetry import metric_names as names
from shared.telemetry.meters import Telemetry

# The level of a drill that fulfils no duty: somebody asked for it.
_ASKED_FOR: Final = "asked-for"


def record_backup(telemetry: Telemetry, document: BackupDocument) -> None:
    which = {"cluster": document.cluster, "kind": document.kind.value}
    plain, stored = document.plain_size, document.stored_size
    telemetry.record(names.BACKUP_DURATION, document.total_ms / 1000, **which)
    telemetry.record(names.BACKUP_BYTES, plain, **which, what="plain")
    telemetry.record(names.BACKUP_BYTES, stored, **which, what="stored")
    if plain:
        telemetry.record(names.BACKUP_RATIO, stored / plain, **which)


def record_drill(telemetry: Telemetry, report: DrillReport) -> None:
    """Of a drill that went all the way: one that was stopped was not slow, or quick, at all."""
    if report.verdict is not DrillVerdict.PROVEN:
        return
    cluster, level = report.cluster, report.level or _ASKED_FOR
    for phase, ms in report.phases_ms.items():
        telemetry.record(names.DRILL_PHASE, ms / 1000, cluster=cluster, phase=phase)
    telemetry.record(names.DRILL_RTO, report.rto_ms / 1000, cluster=cluster, level=level)
    if report.rpo_ms is not None:
        telemetry.record(names.DRILL_RPO, report.rpo_ms / 1000, cluster=cluster)
