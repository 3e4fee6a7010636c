"""HTTP triggers: route templates, methods, keys and the body limit, served by werkzeug."""

import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import azure.functions as func
from werkzeug.exceptions import HTTPException, Unauthorized
from werkzeug.routing import Map, Rule
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request, Response

from local.functions_host.app_settings import AppSettings
from local.functions_host.indexing import AppRefused, HostedFunction
from local.functions_host.invocation import invoke

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# FUNCTIONS_REQUEST_BODY_SIZE_LIMIT; its default in Azure is 100 MiB.
BODY_LIMIT = 104_857_600
ALL_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_PARAMETER = re.compile(r"\{(?P<star>\*?)(?P<name>\w+)(?::(?P<kind>\w+))?(?P<optional>\??)\}")
_CONVERTERS = {None: "string", "int": "int", "guid": "uuid", "alpha": "string"}


class HttpTriggers:
    """The WSGI application of all HTTP functions; `serve` puts it on a socket."""

    def __init__(
        self,
        functions: Sequence[HostedFunction],
        settings: AppSettings,
        route_prefix: str,
        key: str,
        pool: Executor,
    ) -> None:
        self._limit = int(settings.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", BODY_LIMIT))
        self._functions = {function.name: function for function in functions}
        self._key = key
        self._pool = pool
        rules = [rule for item in functions for rule in _rules(item, route_prefix)]
        self._routes = Map(rules, strict_slashes=False)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = self._limit
        try:
            return self._answer(request)(environ, start_response)
        except HTTPException as error:
            return error(environ, start_response)

    def serve(self, host: str, port: int) -> BaseWSGIServer:
        """Bound and listening, port 0 to a free one; the caller runs and closes it."""
        return make_server(host, port, self, threaded=True)

    def _answer(self, request: Request) -> Response:
        name, values = self._routes.bind_to_environ(request.environ).match()
        function = self._functions[name]
        self._authorise(function, request)
        asked = func.HttpRequest(
            request.method,
            request.url,
            headers=dict(request.headers),
            params=request.args.to_dict(),
            route_params={key: str(value) for key, value in values.items()},
            body=request.get_data(),
        )
        return self._run(function, asked)

    def _run(self, function: HostedFunction, asked: func.HttpRequest) -> Response:
        try:
            result = self._pool.submit(invoke, function, asked).result()
        except Exception:  # noqa: BLE001 - a process edge; `invoke` has logged it
            return Response(status=500)
        if isinstance(result, str):
            return Response(result, mimetype="text/plain")
        if not isinstance(result, func.HttpResponse):
            return Response(status=500 if result is not None else 204)
        response = Response(result.get_body(), result.status_code, list(result.headers.items()))
        if "content-type" not in result.headers:
            response.mimetype = result.mimetype
        return response

    def _authorise(self, function: HostedFunction, request: Request) -> None:
        if function.trigger["authLevel"] is func.AuthLevel.ANONYMOUS:
            return
        given = request.headers.get("x-functions-key") or request.args.get("code") or ""
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise Unauthorized


def _rules(function: HostedFunction, prefix: str) -> Iterator[Rule]:
    if function.trigger["authLevel"] is func.AuthLevel.ADMIN:
        raise AppRefused(f"function {function.name}: this host has no admin key")
    methods = [method.value for method in function.trigger.get("methods") or ()] or ALL_METHODS
    template = function.trigger.get("route") or function.name
    for path in _paths(template, function.name):
        rule = Rule(f"/{prefix}/{path}" if prefix else f"/{path}", endpoint=function.name)
        rule.methods = set(methods)  # not through Rule(), which would add HEAD to GET
        yield rule


def _paths(template: str, name: str) -> Iterator[str]:
    """`a/{id:int?}` → `a/<int:id>`, `a`."""

    def convert(match: re.Match[str]) -> str:
        if match["kind"] not in _CONVERTERS:
            raise AppRefused(f"function {name}: route constraint {match['kind']} is not played")
        converter = "path" if match["star"] else _CONVERTERS[match["kind"]]
        return f"<{converter}:{match['name']}>"

    path = _PARAMETER.sub(convert, template.strip("/"))
    if "{" in path or "}" in path:
        raise AppRefused(f"function {name}: route {template!r} is not understood")
    yield path
    last = _PARAMETER.search(template, template.rfind("{"))
    if last is not None and (last["optional"] or last["star"]):
        yield path[: path.rindex("<")].rstrip("/")
