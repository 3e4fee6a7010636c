"""POST api/restores: ask for a restore into a registered target. Somebody else approves it."""

from datetime import timedelta
from uuid import UUID

import azure.functions as func
from pydantic import Field

from functions.callers import Role
from functions.http_protocol import Body
from functions.job_requests import protected_cluster
from functions.operations import Call, Nothing, Operation, serve
from functions.restore_view import (
    ShownRestore,
    found_restore,
    shown_restore,
    shown_restores,
)
from functions.wiring import Services, services
from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.field_types import Cluster, Label, RestoreGoalText
from shared.domain.restore_request import RestoreRequest, RestoreState
from shared.errors import NotFound
from shared.repository.layout import BackupRef

blueprint = func.Blueprint()


class TargetUnknown(NotFound):
    """A target that the settings do not name, or not for this cluster."""

    code = "target-unknown"
    hint = "`[[target]]` in pgkeep.toml names the places that restores may fill, and for whom."


class RestoreAsked(Body):
    """Names of registered things alone. `to` is `latest`, `immediate` or an instant."""

    cluster: Cluster
    target: Cluster
    label: Label | None = None
    to: RestoreGoalText = "latest"


class RestoreQuery(Body):
    """`before` is the last id of the previous page."""

    cluster: Cluster | None = None
    state: RestoreState | None = None
    before: UUID | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class RestorePage(Body):
    restores: tuple[ShownRestore, ...]


def ask_restore(call: Call[RestoreAsked]) -> ShownRestore:
    asked, services = call.asked, call.services
    cluster = protected_cluster(services, asked.cluster)
    _demand_target(services, cluster, asked.target)
    if asked.label is not None:
        services.catalogue.backup(BackupRef(cluster, BackupLabel.parse(asked.label)))
    now = services.clock()
    request = RestoreRequest(
        id=call.new_id("restore"),
        cluster=cluster,
        target=asked.target,
        label=asked.label,
        to=asked.to,
        requested_by=call.caller.person,
        requested_at=now,
        lapses_at=now + timedelta(hours=services.settings.http.restore_lapses_hours),
    )
    details = {"cluster": cluster, "target": asked.target, "label": asked.label, "to": asked.to}
    call.record("restore.request", f"restore {request.id}", **details)
    return shown_restore(services, services.catalogue.ask_restore(request))


def list_restores(call: Call[RestoreQuery]) -> RestorePage:
    query, services = call.asked, call.services
    cluster = protected_cluster(services, query.cluster) if query.cluster else None
    found = services.catalogue.restore_requests(
        cluster, query.state, now=services.clock(), limit=query.limit, before=query.before
    )
    return RestorePage(restores=shown_restores(services, found))


def show_restore(call: Call[Nothing]) -> ShownRestore:
    return shown_restore(call.services, found_restore(call))


def _demand_target(services: Services, cluster: ClusterName, name: str) -> None:
    """Raises TargetUnknown, in the same words for a target of other clusters."""
    for target in services.settings.target:
        if target.name == name and (not target.clusters or cluster in target.clusters):
            return
    raise TargetUnknown(f"cluster {cluster} has no target {name}")


OPERATIONS = (
    Operation(
        method="GET",
        path="restores",
        summary="List restores that were asked for, newest first",
        handle=list_restores,
        asked=RestoreQuery,
        answer=RestorePage,
        statuses=(404,),
    ),
    Operation(
        method="POST",
        path="restores",
        summary="Ask for a restore into a registered target",
        handle=ask_restore,
        asked=RestoreAsked,
        answer=ShownRestore,
        may=frozenset({Role.OPERATOR}),
        status=201,
        changes=True,
        statuses=(404, 409),
    ),
    Operation(
        method="GET",
        path="restores/{id}",
        summary="Show a restore and its job",
        handle=show_restore,
        asked=Nothing,
        answer=ShownRestore,
        statuses=(404,),
    ),
)


@blueprint.route("restores/{id?}", methods=["GET", "POST"], auth_level=func.AuthLevel.ANONYMOUS)
def http_restores(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
