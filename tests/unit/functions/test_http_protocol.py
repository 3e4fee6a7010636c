"""Requests are read strictly, errors become problems, and nothing leaks."""

import json
import logging
from uuid import UUID

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.callers import Forbidden, Unauthenticated
from functions.http_backups import BackupQuery, BackupRequest
from functions.http_protocol import (
    MAX_BODY,
    answer,
    parse_body,
    parse_query,
    requested_id,
    respond,
)
from shared.domain.restore_request import OwnApproval
from shared.errors import (
    BackupConflict,
    CatalogueDenied,
    CatalogueUnavailable,
    JobNotFound,
    PgkeepError,
    RequestInvalid,
    RequestTooLarge,
    SettingsInvalid,
)

JSON = {"content-type": "application/json"}


def post(body: bytes, headers: dict[str, str] | None = None) -> func.HttpRequest:
    return func.HttpRequest("POST", "/api/backups", headers=headers or JSON, body=body)


def get(params: dict[str, str]) -> func.HttpRequest:
    return func.HttpRequest("GET", "/api/backups", params=params, body=b"")


class TestBodies:
    def test_a_good_body_is_read(self) -> None:
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        request = parse_body(post(b'{"cluster": "demo"}', headers), BackupRequest)
        assert (request.cluster, request.kind) == ("demo", "full")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"demo"',
            b'{"cluster": "demo"} {}',
            b'{"cluster": "demo", "cluster": "demo"}',
            b'{"cluster": "demo", "kind": NaN}',
            b'{"cluster": "demo", "kind": Infinity}',
            b'{"cluster": "\xff"}',
            '{"cluster": "demo"}'.encode("utf-16"),
            b"\xef\xbb\xbf" + b'{"cluster": "demo"}',
            b"[" * 60_000,
            b'{"cluster":' * 5_000 + b"1" + b"}" * 5_000,
            b'{"cluster": "demo", "url": "http://169.254.169.254/"}',
            b'{"cluster": "demo", "kind": "synthetic"}',
            b'{"cluster": "demo", "kind": 1}',
            b'{"cluster": 1}',
            b'{"cluster": null}',
            b'{"kind": "full"}',
            b'{"cluster": "../etc"}',
            b'{"cluster": "x\'; DROP TABLE job; --"}',
            b'{"cluster": "demo\\u0000"}',
            b'{"cluster": "demo\\n"}',
        ],
    )
    def test_anything_else_is_refused(self, body: bytes) -> None:
        with pytest.raises(RequestInvalid):
            parse_body(post(body), BackupRequest)

    @pytest.mark.parametrize("content_type", ["", "text/plain", "application/xml", "json"])
    def test_another_content_type_is_refused(self, content_type: str) -> None:
        with pytest.raises(RequestInvalid, match="content type"):
            parse_body(post(b'{"cluster": "demo"}', {"content-type": content_type}), BackupRequest)

    def test_a_large_body_is_refused_before_it_is_parsed(self) -> None:
        body = b'{"cluster": "demo"}'
        assert parse_body(post(body.ljust(MAX_BODY)), BackupRequest).cluster == "demo"
        with pytest.raises(RequestTooLarge):
            parse_body(post(b"{" * (MAX_BODY + 1), {"content-type": "text/plain"}), BackupRequest)

    @given(st.binary(max_size=200))
    def test_no_body_makes_anything_but_a_request_or_a_refusal(self, body: bytes) -> None:
        response = answer(lambda: respond(parse_body(post(body), BackupRequest)))
        assert response.status_code in {200, 400}


class TestQueries:
    def test_what_is_left_out_has_its_default(self) -> None:
        query = parse_query(get({"limit": "5"}), BackupQuery)
        assert (query.limit, query.cluster, query.before) == (5, None, None)

    @pytest.mark.parametrize(
        "params",
        [
            {"limit": "0"},
            {"limit": "1001"},
            {"limit": "ten"},
            {"limit": ""},
            {"cluster": "a,b"},
            {"cluster": ""},
            {"before": "yesterday"},
            {"order": "asc"},
            {"code": "a-function-key"},
        ],
    )
    def test_what_does_not_fit_is_refused(self, params: dict[str, str]) -> None:
        with pytest.raises(RequestInvalid):
            parse_query(get(params), BackupQuery)


class TestIdempotencyKeys:
    def test_the_same_key_of_a_caller_gives_the_same_id_and_none_a_new_one(self) -> None:
        ids = iter([UUID(int=1), UUID(int=2)])

        def asked(caller: str, key: str | None, purpose: str = "job") -> UUID:
            return requested_id(caller, key, purpose, lambda: next(ids))

        assert asked("anna", "a") == asked("anna", "a")
        others = [asked("anna", "b"), asked("bob", "a"), asked("anna", "a", "restore")]
        assert len({asked("anna", "a"), *others}) == 4
        assert [asked("anna", None), asked("anna", None)] == [UUID(int=1), UUID(int=2)]

    @pytest.mark.parametrize("key", ["", " ", "a b", "\u00e4", "x" * 201, "a\n"])
    def test_a_key_that_is_no_visible_ascii_is_refused(self, key: str) -> None:
        with pytest.raises(RequestInvalid, match="idempotency-key"):
            requested_id("anna", key, "job", UUID)


def problem(error: Exception) -> tuple[func.HttpResponse, dict[str, object]]:
    def fail() -> func.HttpResponse:
        raise error

    response = answer(fail)
    return response, json.loads(response.get_body())


class TestProblems:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (RequestInvalid("a fact"), 400),
            (RequestTooLarge("a fact"), 413),
            (JobNotFound("a fact"), 404),
            (BackupConflict("a fact"), 409),
        ],
    )
    def test_the_callers_faults_are_told_in_full(self, error: PgkeepError, status: int) -> None:
        response, body = problem(error)

        assert response.status_code == status
        assert response.mimetype == "application/problem+json"
        assert body == {
            "status": status,
            "code": error.code,
            "fact": "a fact",
            "hint": error.advice,
        }

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (CatalogueUnavailable("server at 10.0.0.7 refused"), 503),
            (CatalogueDenied("role keeper may not"), 500),
            (SettingsInvalid("/etc/pgkeep.toml, line 3: x"), 500),
            (PgkeepError("a defect"), 500),
        ],
    )
    def test_our_own_faults_are_told_to_the_log_alone(
        self, error: PgkeepError, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        response, body = problem(error)

        assert response.status_code == status
        assert (body["code"], body["fact"]) == (error.code, "the request could not be served")
        assert [record.fields["fact"] for record in caplog.records] == [error.fact]  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("error", "status"), [(Forbidden("this needs a role"), 403), (OwnApproval("no"), 403)]
    )
    def test_what_is_denied_to_the_caller_is_told_and_is_no_fault_of_ours(
        self, error: PgkeepError, status: int
    ) -> None:
        response, body = problem(error)
        assert (response.status_code, body["fact"]) == (status, error.fact)

    def test_why_a_token_does_not_count_is_told_to_the_log_alone(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        response, body = problem(Unauthenticated("the token is refused: InvalidSignatureError"))
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert "Signature" not in str(body)
        [record] = caplog.records
        assert "InvalidSignatureError" in record.fields["reason"]  # type: ignore[attr-defined]

    def test_a_defect_shows_no_stack_trace(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.ERROR):
            response, body = problem(ZeroDivisionError("secret"))

        assert (response.status_code, body["code"]) == (500, "internal")
        assert b"secret" not in response.get_body()
        assert any(record.exc_info for record in caplog.records)
