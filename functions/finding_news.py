"""News of findings: each is told once when it is opened and once when it is gone."""

import logging
from typing import Final

from functions.wiring import Services
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import Severity
from shared.domain.findings import FindingChanges
from shared.event_log import log_event
from shared.telemetry.metric_names import FINDINGS_OPENED

_LEVELS: Final = {
    Severity.CRITICAL: logging.ERROR,
    Severity.ERROR: logging.ERROR,
    Severity.WARNING: logging.WARNING,
}


def tell(services: Services, cluster: ClusterName, changes: FindingChanges) -> None:
    """Alerts are made of these two log events, so their fields are stable."""
    for one in changes.opened:
        attributes = {"code": one.code.value, "severity": one.severity.value}
        services.telemetry.record(FINDINGS_OPENED, 1, **attributes)
        log_event(
            "finding-opened",
            level=_LEVELS[one.severity],
            cluster=cluster,
            code=one.code,
            severity=one.severity,
            object=one.object,
            since=one.since,
            fact=one.fact,
            action=one.action,
            evidence=dict(one.evidence),
        )
    for one in changes.closed:
        log_event(
            "finding-closed",
            cluster=cluster,
            code=one.code,
            severity=one.severity,
            object=one.object,
            since=one.since,
        )
