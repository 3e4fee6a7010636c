"""GET api/openapi.json: everything that this interface offers, as OpenAPI 3.1."""

from functools import cache
from typing import Any

import azure.functions as func

from functions import (
    http_backups,
    http_clusters,
    http_drills,
    http_findings,
    http_jobs,
    http_plans,
    http_restore_decision,
    http_restores,
    http_wal,
)
from functions.http_protocol import Body
from functions.openapi_document import document
from functions.operations import Call, Nothing, Operation, serve
from functions.wiring import services

blueprint = func.Blueprint()


class OpenApi(Body):
    """See spec.openapis.org/oas/v3.1.1."""

    openapi: str
    info: dict[str, str]
    paths: dict[str, Any]
    components: dict[str, Any]
    security: list[dict[str, list[str]]]


def show_openapi(call: Call[Nothing]) -> OpenApi:
    return whole_document()


@cache
def whole_document() -> OpenApi:
    return OpenApi(**document(EVERY_OPERATION))


OPERATIONS = (
    Operation(
        method="GET",
        path="openapi.json",
        summary="Show this document",
        handle=show_openapi,
        asked=Nothing,
        answer=OpenApi,
    ),
)
EVERY_OPERATION: tuple[Operation[Any], ...] = (
    *http_clusters.OPERATIONS,
    *http_backups.OPERATIONS,
    *http_plans.OPERATIONS,
    *http_restores.OPERATIONS,
    *http_restore_decision.OPERATIONS,
    *http_drills.OPERATIONS,
    *http_findings.OPERATIONS,
    *http_jobs.OPERATIONS,
    *http_wal.OPERATIONS,
    *OPERATIONS,
)


@blueprint.route("openapi.json", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def http_openapi(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
