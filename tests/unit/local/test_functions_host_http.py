"""The host's HTTP side over a real socket: routes, methods, keys, limits, failures."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from local.functions_host.host import HostAddress, running_host

APP = """
import json
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
drills = func.Blueprint()

@drills.route("drills/{id}", methods=["GET"])
def read_drill(req: func.HttpRequest) -> func.HttpResponse:
    body = {"id": req.route_params["id"], "depth": req.params.get("depth")}
    return func.HttpResponse(json.dumps(body), mimetype="application/json")

@drills.route("drills", methods=["POST"])
def start_drill(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    headers = {"Location": "/api/drills/1", "X-Who": context.function_name}
    return func.HttpResponse(req.get_body(), status_code=202, headers=headers)

@drills.route("health", auth_level=func.AuthLevel.ANONYMOUS)
async def health(req: func.HttpRequest) -> str:
    return "fine"

@drills.route("parts/{number:int}/{*rest}", methods=["GET"])
def part(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(f"{req.route_params['number']}:{req.route_params.get('rest')}")

@drills.route("broken")
def broken(req: func.HttpRequest) -> func.HttpResponse:
    raise RuntimeError("the secret is 42")

app.register_functions(drills)
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostAddress]:
    (tmp_path / "function_app.py").write_text(APP)
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    settings = {"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "1000"}
    with running_host(tmp_path, settings, tmp_path / "state") as address:
        yield address


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()


def ask(
    host: HostAddress, method: str, path: str, body: bytes = b"", key: str | None = None
) -> Answer:
    headers = {} if key is None else {"x-functions-key": key}
    with closing(http.client.HTTPConnection(urlsplit(host.url).netloc, timeout=30)) as connection:
        connection.request(method, path, body or None, headers)
        return Answer(connection.getresponse())


def test_a_route_parameter_and_a_query_reach_the_function(host: HostAddress) -> None:
    answer = ask(host, "GET", "/api/drills/d7?depth=full", key=host.key)
    assert (answer.status, answer.body) == (200, b'{"id": "d7", "depth": "full"}')
    assert answer.headers["content-type"] == "application/json"


def test_status_headers_and_body_come_back_as_the_function_gave_them(host: HostAddress) -> None:
    answer = ask(host, "POST", "/api/drills", b'{"cluster": "main"}', host.key)
    assert (answer.status, answer.body) == (202, b'{"cluster": "main"}')
    assert (answer.headers["location"], answer.headers["x-who"]) == ("/api/drills/1", "start_drill")


def test_a_function_of_level_function_needs_the_key(host: HostAddress) -> None:
    assert ask(host, "GET", "/api/drills/1").status == 401
    assert ask(host, "GET", "/api/drills/1", key="wrong").status == 401
    assert ask(host, "GET", f"/api/drills/1?code={host.key}").status == 200


def test_an_anonymous_async_function_needs_no_key(host: HostAddress) -> None:
    answer = ask(host, "GET", "/api/health")
    assert (answer.status, answer.body) == (200, b"fine")


def test_a_constraint_and_a_rest_are_part_of_the_route(host: HostAddress) -> None:
    assert ask(host, "GET", "/api/parts/7/a/b", key=host.key).body == b"7:a/b"
    assert ask(host, "GET", "/api/parts/7", key=host.key).body == b"7:None"
    assert ask(host, "GET", "/api/parts/seven/a", key=host.key).status == 404


def test_unknown_paths_are_404_and_unknown_methods_405(host: HostAddress) -> None:
    assert ask(host, "GET", "/api/nothing", key=host.key).status == 404
    assert ask(host, "GET", "/drills/1", key=host.key).status == 404
    refused = ask(host, "DELETE", "/api/drills/1", key=host.key)
    assert (refused.status, refused.headers["allow"]) == (405, "GET")


def test_a_body_over_the_limit_is_refused_unread(host: HostAddress) -> None:
    assert ask(host, "POST", "/api/drills", b"x" * 1001, host.key).status == 413
    assert ask(host, "POST", "/api/drills", b"x" * 1000, host.key).status == 202


def test_a_failing_function_is_500_and_tells_nothing(host: HostAddress) -> None:
    answer = ask(host, "GET", "/api/broken", key=host.key)
    assert (answer.status, answer.body) == (500, b"")


def test_the_key_stays_the_same_over_restarts(tmp_path: Path, host: HostAddress) -> None:
    path = tmp_path / "state" / "host_key"
    assert path.read_text() == host.key
    assert path.stat().st_mode & 0o777 == 0o600
    with running_host(tmp_path, {}, tmp_path / "state") as again:
        assert again.key == host.key
