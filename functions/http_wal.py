"""GET api/wal: how much of the clusters' WAL is safe, who archives it, and what is wrong."""

from dataclasses import replace
from datetime import datetime

import azure.functions as func

from functions.http_protocol import Body, answer, parse_query, respond
from functions.job_requests import protected_cluster
from functions.wiring import Services, services
from shared.catalogue.ports import RecordedFinding
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.field_types import Cluster, LsnText
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.freshness import WalFreshness
from shared.domain.wal_inventory import WalRange
from shared.jobs.wal_events import WalProgress

blueprint = func.Blueprint()


class WalQuery(Body):
    cluster: Cluster | None = None


class OpenFinding(Body):
    """`fact` is what was seen last, `action` what to do next."""

    code: FindingCode
    object: str
    since: datetime
    opened_at: datetime
    fact: str
    action: str


class ArchivedRange(Body):
    """Log [start, end) of a timeline without a hole, with its first and last commit."""

    timeline: int
    start: LsnText
    end: LsnText
    first_commit: datetime | None
    last_commit: datetime | None
    stored_bytes: int


class ClusterWal(Body):
    """`freshness` is null until the archive was looked at; its lag is that of now."""

    cluster: str
    freshness: WalFreshness | None
    writers: tuple[WalProgress, ...]
    findings: tuple[OpenFinding, ...]
    ranges: tuple[ArchivedRange, ...]


class WalPage(Body):
    clusters: tuple[ClusterWal, ...]


@blueprint.route("wal", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
def http_wal(req: func.HttpRequest) -> func.HttpResponse:
    return answer(lambda: show_wal(services(), req))


def show_wal(services: Services, req: func.HttpRequest) -> func.HttpResponse:
    """Of one cluster, or of all that the settings name."""
    query = parse_query(req, WalQuery)
    names = [cluster_name(cluster.name) for cluster in services.settings.cluster]
    if query.cluster is not None:
        names = [protected_cluster(services, query.cluster)]
    return respond(WalPage(clusters=tuple(_wal(services, name) for name in names)))


def _wal(services: Services, cluster: ClusterName) -> ClusterWal:
    catalogue = services.catalogue
    seen = catalogue.freshness(cluster)
    snapshot = catalogue.archive_snapshot(cluster)
    events = catalogue.wal_events(cluster)
    return ClusterWal(
        cluster=cluster,
        freshness=seen and replace(seen, lag_seconds=seen.lag_at(services.clock())),
        writers=tuple(event for event in events if isinstance(event, WalProgress)),
        findings=tuple(
            _finding(recorded)
            for recorded in catalogue.findings(cluster)
            if recorded.finding.scope is FindingScope.WAL
        ),
        ranges=tuple(_range(one) for one in snapshot.ranges) if snapshot else (),
    )


def _finding(recorded: RecordedFinding) -> OpenFinding:
    finding = recorded.finding
    return OpenFinding(
        code=finding.code,
        object=finding.object,
        since=finding.since,
        opened_at=recorded.opened_at,
        fact=finding.fact,
        action=finding.action,
    )


def _range(one: WalRange) -> ArchivedRange:
    return ArchivedRange(
        timeline=one.timeline,
        start=one.start,
        end=one.end,
        first_commit=one.first_commit,
        last_commit=one.last_commit,
        stored_bytes=one.stored_bytes,
    )
