"""What the HTTP interface offers: each operation says who may, what goes in and what comes out.

The same value answers requests and makes the OpenAPI document, so the two cannot differ. A request
passes five doors in this order: who is it, do they ask too much, may they, do its words read, then
the work.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar
from uuid import UUID

import azure.functions as func
from opentelemetry.trace import SpanKind, StatusCode

from functions import audit_trail, budgets
from functions.access import caller
from functions.callers import EVERYBODY, Caller, Role
from functions.http_protocol import (
    Body,
    answer,
    parse_body,
    parse_query,
    requested_id,
    respond,
)
from functions.wiring import Services
from shared.errors import NotFound, PgkeepError
from shared.telemetry.metric_names import HTTP_REQUESTS
from shared.telemetry.trace_context import span

# Refusals of what was understood; of what does not read, nobody knows what it was to change.
_AUDITED: Final = {403, 404, 409}

M = TypeVar("M", bound=Body)


class RouteUnknown(NotFound):
    """A path and method that nothing answers."""

    code = "route-unknown"
    hint = "GET /api/openapi.json lists what there is."


class Nothing(Body):
    """A request without parameters."""


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """A request by somebody who may make it: `asked` is its query or its body, validated."""

    services: Services
    caller: Caller
    asked: M
    path: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None

    def new_id(self, purpose: str = "job") -> UUID:
        """The same for the same caller's Idempotency-Key; without one, a new one."""
        return requested_id(self.caller.id, self.key, purpose, self.services.new_id)

    def uuid(self, name: str, otherwise: NotFound) -> UUID:
        """The id in the path; what is none names nothing, so the answer is as for an unknown id.

        Of the ways in which Python reads an id one counts: that in which we write it.
        """
        text = self.path[name]
        with suppress(ValueError):
            if str(found := UUID(text)) == text.lower():
                return found
        raise otherwise

    def record(self, action: str, subject: str, **details: object) -> None:
        """Write down the change that follows; it must not follow when this raises."""
        known = {name: str(value) for name, value in details.items() if value is not None}
        audit_trail.record(self.services, self.caller, action, subject, known)


@dataclass(frozen=True, slots=True)
class Operation(Generic[M]):
    """`path` is relative to /api, `asked` the model of the query, or of a POST's body.

    `changes`: it makes something happen, so its refusals are written down. `statuses` are those of
    its own refusals. `weight` is what a read costs in the caller's budget.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    handle: Callable[[Call[M]], Body]
    asked: type[M]
    answer: type[Body]
    may: frozenset[Role] = EVERYBODY
    status: int = 200
    changes: bool = False
    statuses: tuple[int, ...] = ()
    weight: int = 1

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the path."""
        parts = self.path.split("/")
        return tuple(part.strip("{}") for part in parts if part.startswith("{"))

    @property
    def name(self) -> str:
        return f"{self.method} /api/{self.path}"


def serve(
    operations: Sequence[Operation[Any]],
    services: Callable[[], Services],
    request: func.HttpRequest,
) -> func.HttpResponse:
    """The answer of the operation that the request means; errors become problems."""
    return answer(lambda: _observed(operations, services(), request))


def _observed(
    operations: Sequence[Operation[Any]], services: Services, request: func.HttpRequest
) -> func.HttpResponse:
    """Counted, and a trace of its own; jobs that it asks for are its children.

    A caller's traceparent is not followed: it could say that nothing of this is to be recorded.
    """
    name, telemetry = _name(operations, request), services.telemetry
    with span(telemetry, name, kind=SpanKind.SERVER) as own:
        answered = answer(lambda: _served(operations, services, request))
        own.set_attribute("http.request.method", request.method)
        own.set_attribute("http.response.status_code", answered.status_code)
        if answered.status_code >= PgkeepError.http_status:
            own.set_status(StatusCode.ERROR)
    telemetry.record(HTTP_REQUESTS, 1, operation=name, status=str(answered.status_code))
    return answered


def _name(operations: Sequence[Operation[Any]], request: func.HttpRequest) -> str:
    """Never the path itself, which holds whatever the caller likes."""
    try:
        return _meant(operations, request).name
    except RouteUnknown:
        return "unknown"


def _meant(operations: Sequence[Operation[Any]], request: func.HttpRequest) -> Operation[Any]:
    given = {name for name, value in request.route_params.items() if value}
    for operation in operations:
        if operation.method == request.method and given == set(operation.parameters):
            return operation
    raise RouteUnknown("nothing answers this method here")


def _served(
    operations: Sequence[Operation[Any]], services: Services, request: func.HttpRequest
) -> func.HttpResponse:
    who = caller(services, request)
    operation = _meant(operations, request)
    permitted = bool(who.roles & operation.may)
    budgets.spend(
        services, who, changes=operation.changes, permitted=permitted, weight=operation.weight
    )
    try:
        who.demand(*operation.may)
        return respond(operation.handle(_call(operation, services, who, request)), operation.status)
    except PgkeepError as error:
        if operation.changes and error.http_status in _AUDITED:
            subject = operation.path.format(**request.route_params)
            audit_trail.record_refusal(services, who, operation.name, subject, error.code)
        raise


def _call(
    operation: Operation[M], services: Services, who: Caller, request: func.HttpRequest
) -> Call[M]:
    if operation.method == "POST":
        asked = parse_body(request, operation.asked)
        parse_query(request, Nothing)
    else:
        asked = parse_query(request, operation.asked)
    key = request.headers.get("idempotency-key")
    return Call(services, who, asked, dict(request.route_params), key)
