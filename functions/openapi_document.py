"""The OpenAPI 3.1 document, made of the operations themselves and of their models."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from functions.http_protocol import Body, Problem
from functions.operations import Operation
from shared.domain.cluster import CLUSTER_NAME_PATTERN
from shared.errors import RequestsTooMany

# Of the interface: it grows when something is taken away or changes its meaning.
_VERSION: Final = "1"
_REFS: Final = "#/components/schemas/{model}"
# Every operation may be refused for these; 500 and 503 are our own faults.
_ALWAYS: Final = (400, 401, 403, 429, 500, 503)
_REASONS: Final = {
    400: "The request does not fit",
    401: "No caller that counts",
    403: "The caller lacks the role",
    404: "No such thing, or not here",
    409: "It contradicts what is",
    413: "The body is too large",
    429: "The caller, or all callers together, asked too much; Retry-After says how long to wait",
    500: "A fault of the control plane",
    503: "A service of the control plane does not answer",
}
_WAIT: Final = {
    "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}
}
_PATH: Final = {
    "id": {"type": "string", "format": "uuid"},
    "name": {"type": "string", "pattern": CLUSTER_NAME_PATTERN},
}
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request is the same thing; keys are per caller.",
    "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,200}$"},
}


def document(operations: Sequence[Operation[Any]]) -> dict[str, Any]:
    schemas, definitions = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {"/api/health": {"get": _health()}}
    for operation in operations:
        methods = paths.setdefault(f"/api/{operation.path}", {})
        methods[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "pgkeep", "version": _VERSION},
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _schemas(
    operations: Sequence[Operation[Any]],
) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    """Reference by model, as it is read or written; and what the references mean."""
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for operation in operations:
        wanted[(operation.asked, "validation")] = None
        wanted[(operation.answer, "serialization")] = None
    references, schema = models_json_schema(list(wanted), ref_template=_REFS)
    return references, schema["$defs"]


def _operation(operation: Operation[Any], schemas: Mapping[Any, Any]) -> dict[str, Any]:
    answer = schemas[(operation.answer, "serialization")]
    problem = schemas[(Problem, "serialization")]
    refusals = (*_ALWAYS, *operation.statuses, *((413,) if operation.method == "POST" else ()))
    described: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "x-pgkeep-roles": sorted(operation.may),
        "parameters": _parameters(operation),
        "responses": {
            str(operation.status): _response("Done", "application/json", answer),
            **{str(status): _refusal(status, problem) for status in sorted(refusals)},
        },
    }
    if operation.method == "POST":
        asked = schemas[(operation.asked, "validation")]
        content = {"application/json": {"schema": asked}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(operation: Operation[Any]) -> list[dict[str, Any]]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": _PATH[name]}
        for name in operation.parameters
    ]
    if operation.method == "POST":
        return [*path, _KEY] if operation.changes else path
    return [*path, *_query(operation.asked)]


def _query(model: type[Body]) -> list[dict[str, Any]]:
    """Parameters are given or left out; they have no null."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _without_null(given, definitions),
        }
        for name, given in schema.get("properties", {}).items()
    ]


def _without_null(given: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    variants = [one for one in given.get("anyOf", [given]) if one.get("type") != "null"]
    (only,) = variants
    if reference := only.get("$ref"):
        found: dict[str, Any] = definitions[reference.rpartition("/")[2]]
        return found
    return {key: value for key, value in only.items() if key != "title"}


def _operation_id(operation: Operation[Any]) -> str:
    words = operation.path.replace("{", "by_").replace("}", "").split("/")
    return "_".join([operation.method.lower(), *words])


def _response(reason: str, media_type: str, schema: object) -> dict[str, Any]:
    return {"description": reason, "content": {media_type: {"schema": schema}}}


def _refusal(status: int, problem: object) -> dict[str, Any]:
    refusal = _response(_REASONS[status], "application/problem+json", problem)
    return refusal | ({"headers": _WAIT} if status == RequestsTooMany.http_status else {})


def _health() -> dict[str, Any]:
    status = {"enum": ["ok", "degraded"]}
    schema = {"type": "object", "properties": {"status": status}, "required": ["status"]}
    return {
        "operationId": "get_health",
        "summary": "Say whether the control plane is whole; open to everybody",
        "security": [],
        "responses": {"200": _response("Always", "application/json", schema)},
    }
