"""HTTP as this app speaks it: strict JSON in, JSON or RFC 9457 problems out, nothing leaked."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID, uuid5

import azure.functions as func
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import Denied, PgkeepError, RequestInvalid, RequestTooLarge, SettingsInvalid
from shared.event_log import LOGGER, log_event

M = TypeVar("M", bound="Body")

MAX_BODY = 64 * 1024
# A function key may travel in the query; it is the host's, not ours.
_HOST_PARAMETERS = {"code", "clientid"}
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_REQUESTED_JOBS = UUID("b3c4f2d8-9f0e-5d0b-8a53-35a4a5d0e6c7")


class Body(BaseModel):
    """What a request or an answer carries; unknown members are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def answer(work: Callable[[], func.HttpResponse]) -> func.HttpResponse:
    """The one place where errors become statuses."""
    try:
        return work()
    except PgkeepError as error:
        return _problem(error)
    except Exception:  # noqa: BLE001 - a process edge: the log learns everything, the caller nothing
        LOGGER.exception("request-failed")
        return _problem(PgkeepError("the request could not be served"))


def respond(body: Body, status: int = 200) -> func.HttpResponse:
    return _json(body.model_dump_json(), status, "application/json")


def parse_body(request: func.HttpRequest, model: type[M]) -> M:
    """Raises RequestTooLarge, before parsing, and RequestInvalid for all but strict JSON."""
    body = request.get_body()
    if len(body) > MAX_BODY:
        raise RequestTooLarge(f"body has {len(body)} bytes, over {MAX_BODY}")
    media_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestInvalid(f"content type is {media_type!r}, not 'application/json'")
    try:
        json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RequestInvalid("body is not strict json in utf-8") from None
    return _validated(lambda: model.model_validate_json(body, strict=True))


def parse_query(request: func.HttpRequest, model: type[M]) -> M:
    """Raises RequestInvalid."""
    given = {k: v for k, v in request.params.items() if k.lower() not in _HOST_PARAMETERS}
    return _validated(lambda: model.model_validate_strings(given))


def requested_job_id(request: func.HttpRequest, new_id: Callable[[], UUID]) -> UUID:
    """The same for the same Idempotency-Key; a new one without. Raises RequestInvalid."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return new_id()
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise RequestInvalid("idempotency-key is not 1 to 200 visible ascii characters")
    return uuid5(_REQUESTED_JOBS, key)


def _validated(validate: Callable[[], M]) -> M:
    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "request"
        raise RequestInvalid(f"{where}: {first['msg'].lower()}") from None


def _unique(members: list[tuple[str, Any]]) -> Mapping[str, Any]:
    if len({name for name, _ in members}) != len(members):
        raise ValueError
    return dict(members)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _problem(error: PgkeepError) -> func.HttpResponse:
    """Faults of our own side keep their facts for the log: they name hosts, roles and files."""
    ours = isinstance(error, Denied | SettingsInvalid)
    status = PgkeepError.http_status if ours else error.http_status
    if status >= PgkeepError.http_status:
        log_event("request-failed", level=logging.ERROR, code=error.code, fact=error.fact)
        body = {"code": error.code, "fact": "the request could not be served", "hint": ""}
    else:
        body = {"code": error.code, "fact": error.fact, "hint": error.advice}
    return _json(json.dumps({"status": status, **body}), status, "application/problem+json")


def _json(text: str, status: int, media_type: str) -> func.HttpResponse:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return func.HttpResponse(text, status_code=status, mimetype=media_type, headers=headers)
