"""GET api/wal: how much of the clusters' WAL is safe, who archives it, and what is wrong."""

from dataclasses import replace
from datetime import datetime

import azure.functions as func
from pydantic import Field

from functions.http_protocol import Body
from functions.job_requests import protected_cluster
from functions.operations import Call, Operation, serve
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
    """`after` is the last name of the previous page. Each cluster is five questions to the
    catalogue, so a page is short.
    """

    cluster: Cluster | None = None
    after: Cluster | None = None
    limit: int = Field(default=100, ge=1, le=100)


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
    """`freshness` is null until the archive was looked at; its lag is that of now. The WAL of
    commits before `geo_safe_through` is also in the second region.
    """

    cluster: str
    freshness: WalFreshness | None
    geo_safe_through: datetime | None
    writers: tuple[WalProgress, ...]
    findings: tuple[OpenFinding, ...]
    ranges: tuple[ArchivedRange, ...]


class WalPage(Body):
    clusters: tuple[ClusterWal, ...]


def show_wal(call: Call[WalQuery]) -> WalPage:
    """Of one cluster, or of those that the settings name, by name."""
    return WalPage(clusters=tuple(_wal(call.services, name) for name in _names(call)))


def _names(call: Call[WalQuery]) -> list[ClusterName]:
    asked = call.asked
    if asked.cluster is not None:
        return [protected_cluster(call.services, asked.cluster)]
    names = sorted(cluster.name for cluster in call.services.settings.cluster)
    later = [cluster_name(name) for name in names if name > (asked.after or "")]
    return later[: asked.limit]


def _wal(services: Services, cluster: ClusterName) -> ClusterWal:
    catalogue = services.catalogue
    seen = catalogue.freshness(cluster)
    snapshot = catalogue.archive_snapshot(cluster)
    events = catalogue.wal_events(cluster)
    return ClusterWal(
        cluster=cluster,
        freshness=seen and replace(seen, lag_seconds=seen.lag_at(services.clock())),
        geo_safe_through=catalogue.wal_safe_through(cluster),
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


OPERATIONS = (
    Operation(
        method="GET",
        path="wal",
        summary="Show how much WAL is safe, and what is wrong with it",
        handle=show_wal,
        asked=WalQuery,
        answer=WalPage,
        statuses=(404,),
        weight=5,
    ),
)


@blueprint.route("wal", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def http_wal(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
