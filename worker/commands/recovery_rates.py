"""How long a recovery takes: by the rates that the newest drills measured, or by assumed ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.drill import DrillPhase
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.documents import DrillReport
from shared.repository.reports import is_report, read_report
from worker.commands.restore import ASSUMED_BYTES_PER_SECOND, PreparedRestore
from worker.commands.services import Services

# One process replays. Drills on two busy cores saw 94 MB/s of WAL from random updates and 132 MB/s
# from one bulk insert: half of it, until a drill has measured the cluster's own.
ASSUMED_REPLAY_BYTES_PER_SECOND: Final = 50e6
# Of the newest reports; one of them is usually of the kind that is looked for.
_LOOK_BACK: Final = 10


@dataclass(frozen=True, slots=True)
class Rate:
    bytes_per_second: float
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds until the files are there, and until the WAL is replayed."""

    restore: Rate
    replay: Rate
    restore_seconds: float
    replay_seconds: float

    @property
    def seconds(self) -> float:
        return self.restore_seconds + self.replay_seconds


def estimate(services: Services, prepared: PreparedRestore) -> Estimate:
    """Reads at most the newest few drill reports; one that cannot be believed does not count."""
    reports = list(islice(_newest_reports(services, prepared.request.cluster), _LOOK_BACK))
    restore = _rate(reports, DrillPhase.FETCH_APPLY, ASSUMED_BYTES_PER_SECOND)
    replay = _rate(reports, DrillPhase.REPLAY, ASSUMED_REPLAY_BYTES_PER_SECOND)
    wal_bytes = prepared.planned.plan.wal_bytes if prepared.planned else 0
    return Estimate(
        restore,
        replay,
        prepared.plan.estimated_seconds(restore.bytes_per_second),
        wal_bytes / replay.bytes_per_second,
    )


def _rate(reports: list[DrillReport], phase: DrillPhase, assumed: float) -> Rate:
    for report in reports:
        replayed = phase is DrillPhase.REPLAY
        done = report.replayed_bytes if replayed else report.restored_bytes
        milliseconds = report.phases_ms.get(phase, 0)
        if done and milliseconds:
            return Rate(done / milliseconds * 1000, f"measured by drill {report.id}")
    return Rate(assumed, "assumed: no drill has measured it")


def _newest_reports(services: Services, cluster: ClusterName) -> Iterator[DrillReport]:
    prefix = layout.drill_reports_prefix(cluster)
    blobs = [b for b in services.store.list(layout.EVIDENCE, prefix) if is_report(b.name)]
    for blob in sorted(blobs, key=lambda blob: blob.modified, reverse=True):
        try:
            report = read_report(services.store, blob.name, services.pinned).report
        except PgkeepError as error:
            if error.retryable:
                raise
            log_event("drill-report-refused", name=str(blob.name), code=error.code)
            continue
        if isinstance(report, DrillReport):
            yield report
