"""HTTP as this app speaks it: strict JSON in, JSON or RFC 9457 problems out, nothing leaked."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID, uuid5

import azure.functions as func
from opentelemetry.trace import get_current_span
from pydantic import BaseModel, ConfigDict, ValidationError

from functions.callers import Forbidden, Unauthenticated
from shared.domain.restore_request import OwnApproval
from shared.errors import (
    Denied,
    PgkeepError,
    RequestInvalid,
    RequestsTooMany,
    RequestTooLarge,
    SettingsInvalid,
)
from shared.event_log import LOGGER, log_event

M = TypeVar("M", bound="Body")

MAX_BODY = 64 * 1024
# Facts quote what is wrong; nobody needs all of 64 KiB back.
_FACT_LENGTH = 1000
# Denials that are about who calls; all others are about what we may do ourselves.
_OF_CALLERS = (Unauthenticated, Forbidden, OwnApproval)
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_REQUESTED = UUID("b3c4f2d8-9f0e-5d0b-8a53-35a4a5d0e6c7")


class Body(BaseModel):
    """What a request or an answer carries; unknown members are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Body):
    """What every refusal says (RFC 9457); `code` is stable."""

    status: int
    code: str
    fact: str
    hint: str


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
    """Raises RequestInvalid, also for a repeated parameter: hosts differ in which one counts."""
    _, _, query = request.url.partition("?")
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    if len(set(names)) != len(names):
        raise RequestInvalid("a parameter of the query is repeated")
    return _validated(lambda: model.model_validate_strings(dict(request.params)))


def requested_id(caller: str, key: str | None, purpose: str, new_id: Callable[[], UUID]) -> UUID:
    """The same for the same Idempotency-Key of a caller, for one purpose; a new one without.

    Raises RequestInvalid. No part holds a blank, so no two calls read alike.
    """
    if key is None:
        return new_id()
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise RequestInvalid("idempotency-key is not 1 to 200 visible ascii characters")
    return uuid5(_REQUESTED, f"{purpose} {caller} {key}")


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
    """Faults of our own side keep their facts for the log: they name hosts, roles and files.

    So does the reason why a token does not count: it would help whoever makes them up.
    """
    ours = isinstance(error, Denied | SettingsInvalid) and not isinstance(error, _OF_CALLERS)
    status = PgkeepError.http_status if ours else error.http_status
    fact, hint = error.fact, error.advice
    if isinstance(error, Unauthenticated):
        log_event("caller-unknown", level=logging.WARNING, reason=error.fact)
        fact = "the request names no caller that counts here"
    elif status >= PgkeepError.http_status:
        log_event("request-failed", level=logging.ERROR, code=error.code, fact=error.fact)
        fact, hint = "the request could not be served", ""
    fact = fact[:_FACT_LENGTH]
    problem = Problem(status=status, code=error.code, fact=fact, hint=hint)
    get_current_span().set_attribute("error_code", error.code)
    answered = _json(problem.model_dump_json(), status, "application/problem+json")
    if isinstance(error, Unauthenticated):
        answered.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §11.6.1 demands it
    if isinstance(error, RequestsTooMany):
        answered.headers["Retry-After"] = str(error.wait_s)
    return answered


def _json(text: str, status: int, media_type: str) -> func.HttpResponse:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return func.HttpResponse(text, status_code=status, mimetype=media_type, headers=headers)
