"""A small Azure Resource Manager on this machine: it replays recorded answers about one account.

Paths, bodies and error codes are those of the documentation; tests may make it refuse.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from azure.core.credentials import AccessToken

ACCOUNT = (
    "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/backups"
    "/providers/Microsoft.Storage/storageAccounts/pgkeepdata"
)
TOKEN = "token-of-a-test"  # noqa: S105 - opens nothing

Answer = tuple[int, dict[str, Any]]


@dataclass
class ResourceManager:
    """`refusals` are answered first, one for each request; `recording` is the account's state."""

    url: str
    recording: dict[str, Any] = field(default_factory=dict)
    refusals: list[tuple[int, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def refuse(self, status: int, code: str, **headers: str) -> None:
        self.refusals.append((status, _error(code), headers))

    def answer(self, path: str) -> Answer:
        match path.removeprefix(f"{ACCOUNT}/").split("/"):
            case ["managementPolicies", "default"]:
                policy = self.recording.get("managementPolicy")
                return (200, policy) if policy else (404, _error("ManagementPolicyNotFound"))
            case ["blobServices", "default"]:
                return 200, self.recording["blobService"]
            case ["blobServices", "default", "containers", name]:
                found = [one for one in self.recording["containers"] if one["name"] == name]
                return (200, found[0]) if found else (404, _error("ContainerNotFound"))
            case _:
                return 404, _error("ResourceNotFound")


class TestCredential:
    """Gives one token, and says for what it was asked."""

    __test__ = False

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes.extend(scopes)
        return AccessToken(TOKEN, 1 << 40)


def _error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"made up for a test: {code}"}}


@contextmanager
def running_resource_manager() -> Iterator[ResourceManager]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    manager = ResourceManager(f"http://127.0.0.1:{server.server_port}")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            manager.requests.append(parts.path)
            headers: dict[str, str] = {}
            if manager.refusals:
                status, body, headers = manager.refusals.pop(0)
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, body = 401, _error("InvalidAuthenticationToken")
            elif "api-version" not in parse_qs(parts.query):
                status, body = 400, _error("MissingApiVersionParameter")
            else:
                status, body = manager.answer(parts.path)
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server.RequestHandlerClass = Handler
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield manager
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
