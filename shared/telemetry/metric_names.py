"""The one table of metrics: their names, units and attributes.

Azure Monitor keeps the names as they are; what Prometheus makes of them says
docs/how-to/scrape-with-prometheus.md. Attributes have few values: clusters, and words of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Kind = Literal["counter", "histogram", "gauge"]
EmittedBy = Literal["functions", "worker"]

BACKUP_AGE: Final = "pgkeep.backup.age"
WAL_LAG: Final = "pgkeep.wal.lag"
WAL_UNARCHIVED: Final = "pgkeep.wal.unarchived"
RTO: Final = "pgkeep.rto"
RPO: Final = "pgkeep.rpo"
STORAGE_USED: Final = "pgkeep.storage.used"
STORAGE_USED_RATIO: Final = "pgkeep.storage.used_ratio"
FINDINGS: Final = "pgkeep.findings"
GEO_LAG: Final = "pgkeep.geo.lag"
LOOKS: Final = "pgkeep.looks"
JOB_OUTCOMES: Final = "pgkeep.job.outcomes"
FINDINGS_OPENED: Final = "pgkeep.findings.opened"
HTTP_REQUESTS: Final = "pgkeep.http.requests"
JOB_DURATION: Final = "pgkeep.job.duration"
BACKUP_DURATION: Final = "pgkeep.backup.duration"
BACKUP_BYTES: Final = "pgkeep.backup.bytes"
BACKUP_RATIO: Final = "pgkeep.backup.ratio"
DRILL_PHASE: Final = "pgkeep.drill.phase"
DRILL_RTO: Final = "pgkeep.drill.rto"
DRILL_RPO: Final = "pgkeep.drill.rpo"
WAL_RECEIVE_LAG: Final = "pgkeep.wal.receive.lag"
WAL_SEGMENTS: Final = "pgkeep.wal.segments"
WAL_ACKNOWLEDGE: Final = "pgkeep.wal.acknowledge"

# Upper bounds of a histogram's buckets, for Prometheus: Azure Monitor keeps sum, count, min, max.
_SECONDS: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_BYTES: Final = tuple(float(1 << power) for power in range(20, 46, 2))
_RATIOS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5)


@dataclass(frozen=True, slots=True)
class MetricRule:
    """One metric; each of its values comes with all of `attributes`, and no others."""

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    emitted_by: EmittedBy
    description: str

    @property
    def buckets(self) -> tuple[float, ...]:
        """Upper bounds for a histogram, by its unit."""
        return {"s": _SECONDS, "By": _BYTES}.get(self.unit, _RATIOS)


_RULES: Final = (
    MetricRule(
        BACKUP_AGE,
        "gauge",
        "s",
        ("cluster", "fact"),
        "functions",
        "Age of the newest backup that is committed, verified, proven or geo-safe",
    ),
    MetricRule(
        WAL_LAG,
        "gauge",
        "s",
        ("cluster",),
        "functions",
        "Time since everything committed was in the archive",
    ),
    MetricRule(
        WAL_UNARCHIVED,
        "gauge",
        "By",
        ("cluster",),
        "functions",
        "WAL that the server has and the archive has not",
    ),
    MetricRule(
        RTO,
        "gauge",
        "s",
        ("cluster", "kind"),
        "functions",
        "Time to restore: measured by the newest drill, or predicted",
    ),
    MetricRule(
        RPO, "gauge", "s", ("cluster",), "functions", "What a disaster at this moment would cost"
    ),
    MetricRule(
        STORAGE_USED,
        "gauge",
        "By",
        ("cluster",),
        "functions",
        "Stored bytes of a cluster, or of _repository as a whole",
    ),
    MetricRule(
        STORAGE_USED_RATIO,
        "gauge",
        "1",
        ("cluster",),
        "functions",
        "Stored bytes by the budget of a cluster, or of _repository as a whole",
    ),
    MetricRule(
        FINDINGS,
        "gauge",
        "{finding}",
        ("cluster", "code", "severity"),
        "functions",
        "Open findings of a cluster; a code without any is 0 of _repository",
    ),
    MetricRule(
        GEO_LAG, "gauge", "s", (), "functions", "Age of what the copy in the second region holds"
    ),
    MetricRule(
        LOOKS,
        "counter",
        "{look}",
        ("timer", "outcome"),
        "functions",
        "Looks that a timer took: the sign of life",
    ),
    MetricRule(
        JOB_OUTCOMES,
        "counter",
        "{job}",
        ("verb", "outcome"),
        "functions",
        "Jobs that are over: succeeded, failed or lost",
    ),
    MetricRule(
        FINDINGS_OPENED,
        "counter",
        "{finding}",
        ("code", "severity"),
        "functions",
        "Findings that were opened",
    ),
    MetricRule(
        HTTP_REQUESTS,
        "counter",
        "{request}",
        ("operation", "status"),
        "functions",
        "Requests that the API answered",
    ),
    MetricRule(
        JOB_DURATION,
        "histogram",
        "s",
        ("verb", "outcome"),
        "worker",
        "One attempt at a job: succeeded, failed or released",
    ),
    MetricRule(
        BACKUP_DURATION,
        "histogram",
        "s",
        ("cluster", "kind"),
        "worker",
        "Taking a backup that was committed",
    ),
    MetricRule(
        BACKUP_BYTES,
        "histogram",
        "By",
        ("cluster", "kind", "what"),
        "worker",
        "A committed backup's bytes: plain as PostgreSQL sent them, stored as they lie",
    ),
    MetricRule(
        BACKUP_RATIO,
        "histogram",
        "1",
        ("cluster", "kind"),
        "worker",
        "Stored by plain bytes of a committed backup",
    ),
    MetricRule(
        DRILL_PHASE,
        "histogram",
        "s",
        ("cluster", "phase"),
        "worker",
        "A phase of a drill: the RTO by its parts",
    ),
    MetricRule(
        DRILL_RTO,
        "histogram",
        "s",
        ("cluster", "level"),
        "worker",
        "Time until somebody could work again, of a drill that proved its backup",
    ),
    MetricRule(
        DRILL_RPO,
        "histogram",
        "s",
        ("cluster",),
        "worker",
        "What a disaster at the drill's target would have cost",
    ),
    MetricRule(
        WAL_RECEIVE_LAG,
        "gauge",
        "s",
        ("cluster",),
        "worker",
        "Time since the archive was known to hold all of the server's WAL",
    ),
    MetricRule(
        WAL_SEGMENTS,
        "counter",
        "{segment}",
        ("cluster", "outcome"),
        "worker",
        "Segments, and pieces of them, put into the archive: new, known, conflict or failed",
    ),
    MetricRule(
        WAL_ACKNOWLEDGE,
        "histogram",
        "s",
        ("cluster",),
        "worker",
        "From the arrival of WAL until it is durable and may be acknowledged",
    ),
)
METRICS: Final[Mapping[str, MetricRule]] = MappingProxyType({rule.name: rule for rule in _RULES})
