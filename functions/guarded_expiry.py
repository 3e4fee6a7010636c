"""Clusters of which nothing expires, because Azure would delete something that they need."""

from collections.abc import Iterable, Mapping

from functions.expiry_intake import refused_before_it_began
from functions.wiring import Services
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode, FindingScope, Severity
from shared.domain.findings import Finding

Dangers = Mapping[ClusterName, Finding]


def dangers(services: Services) -> Dangers:
    """One open critical finding of the guard of each cluster that has any."""
    return {
        recorded.cluster: recorded.finding
        for recorded in services.catalogue.findings()
        if recorded.finding.scope is FindingScope.GUARD
        and recorded.finding.severity is Severity.CRITICAL
    }


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
