"""GET api/clusters: what is protected, how well, and by which policy."""

import azure.functions as func
from pydantic import Field

from functions.cluster_view import ListedCluster, ShownCluster, listed_cluster, shown_cluster
from functions.http_protocol import Body
from functions.job_requests import protected_cluster
from functions.operations import Call, Nothing, Operation, serve
from functions.wiring import services
from shared.domain.cluster import cluster_name
from shared.domain.field_types import Cluster

blueprint = func.Blueprint()


class ClusterQuery(Body):
    """`after` is the last name of the previous page."""

    after: Cluster | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class ClusterPage(Body):
    clusters: tuple[ListedCluster, ...]


def list_clusters(call: Call[ClusterQuery]) -> ClusterPage:
    """By name."""
    query, services = call.asked, call.services
    after = query.after or ""
    page = sorted(
        (cluster for cluster in services.settings.cluster if cluster.name > after),
        key=lambda cluster: cluster.name,
    )[: query.limit]
    names = [cluster_name(cluster.name) for cluster in page]
    members = services.catalogue.fleet(names, services.clock())
    recorded = services.catalogue.findings()
    return ClusterPage(
        clusters=tuple(
            listed_cluster(cluster, members[name], [one for one in recorded if one.cluster == name])
            for name, cluster in zip(names, page, strict=True)
        )
    )


def show_cluster(call: Call[Nothing]) -> ShownCluster:
    name = protected_cluster(call.services, call.path["name"])
    return shown_cluster(call.services, name)


OPERATIONS = (
    Operation(
        method="GET",
        path="clusters",
        summary="List the clusters that are protected, by name",
        handle=list_clusters,
        asked=ClusterQuery,
        answer=ClusterPage,
    ),
    Operation(
        method="GET",
        path="clusters/{name}",
        summary="Show a cluster: its policy, its newest backups, its WAL",
        handle=show_cluster,
        asked=Nothing,
        answer=ShownCluster,
        statuses=(404,),
    ),
)


@blueprint.route("clusters/{name?}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def http_clusters(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
