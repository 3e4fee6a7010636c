"""Clusters of which nothing expires now: Azure would delete something that they need, or somebody
has asked for a restore that nobody has decided yet. Restores that run are among the active jobs.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from functions.expiry_intake import refused_before_it_began
from functions.wiring import Services
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode, FindingScope, Severity
from shared.domain.findings import Finding
from shared.domain.restore_request import RestoreState

Dangers = Mapping[ClusterName, Finding]
# Requests lapse by themselves; nobody has so many at once.
_REQUESTS_AT_MOST: Final = 10_000


def dangers(services: Services) -> Dangers:
    """One open critical finding of the guard of each cluster that has any."""
    return {
        recorded.cluster: recorded.finding
        for recorded in services.catalogue.findings()
        if recorded.finding.scope is FindingScope.GUARD
        and recorded.finding.severity is Severity.CRITICAL
    }


def awaited_restores(services: Services) -> Collection[ClusterName]:
    """Of those the backup that is meant may be any, and must still be there at the approval."""
    waiting = services.catalogue.restore_requests(
        state=RestoreState.REQUESTED, now=services.clock(), limit=_REQUESTS_AT_MOST
    )
    return {request.cluster for request in waiting}


def tell_refused(services: Services, clusters: Iterable[ClusterName], why: Dangers) -> None:
    """Open `expire-refused` of each, unless it is open: a whole fleet may be in danger at once."""
    if not (wanted := set(clusters)):
        return
    known = {
        recorded.cluster
        for recorded in services.catalogue.findings()
        if recorded.finding.code is FindingCode.EXPIRE_REFUSED
    }
    for cluster in sorted(wanted - known):
        refused_before_it_began(services, cluster, why[cluster])
