"""A Key Vault on 127.0.0.1: HTTPS, the authentication challenge, and answers by script.

It speaks enough of the REST API for the real SDK: get key, unwrapKey, sign. What it computes
with are keys of this process.
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme
from azure.core.credentials import AccessToken

from shared.repository.base64url import decode, encode

Answer = tuple[int, dict[str, object]]
VERSION = "0123456789abcdef" * 2
_CHALLENGE = (
    'Bearer authorization="https://login.microsoftonline.com/tenant", '
    'resource="https://vault.azure.net"'
)


def refusal(status: int, code: str, inner: str) -> Answer:
    """A Key Vault error body."""
    error = {"code": code, "message": "no", "innererror": {"code": inner}}
    return status, {"error": error}


class StaticCredential:
    """A token that never expires."""

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return AccessToken("canary-token", 4_102_444_800)


@dataclass
class FakeKeyVault:
    """`script` answers before `compute` does; `operations` are the paths that were asked for.

    `readable`: the public half as JWK, where the identity may read the key.
    """

    authority: Path
    compute: Callable[[bytes], bytes] = bytes
    port: int = 0
    script: list[Answer] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    readable: dict[str, str] | None = None

    @property
    def key_id(self) -> str:
        return f"https://127.0.0.1:{self.port}/keys/wrap/{VERSION}"

    @property
    def options(self) -> dict[str, object]:
        """For service_client: trust this server, and wait little between attempts."""
        return {
            "connection_verify": str(self.authority),
            "verify_challenge_resource": False,
            "retry_backoff_factor": 0.001,
        }

    def answer(self, path: str, body: bytes) -> Answer:
        if self.script:
            return self.script.pop(0)
        result = self.compute(decode(json.loads(body)["value"]))
        return 200, {"kid": self.key_id, "value": encode(result)}


@contextmanager
def fake_key_vault(folder: Path, compute: Callable[[bytes], bytes]) -> Iterator[FakeKeyVault]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    vault = FakeKeyVault(folder / "authority.pem", compute)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(vault))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    vault.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(vault: FakeKeyVault) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            if vault.readable:
                self._reply(200, {"key": {"kid": vault.key_id, **vault.readable}, "attributes": {}})
                return
            # Few identities may read keys; the SDK then leaves the operation to the service.
            self._reply(*refusal(403, "Forbidden", "ForbiddenByRbac"))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "Authorization" not in self.headers:
                self._reply(401, {})
                return
            vault.operations.append(self.path.partition("?")[0].rpartition("/")[2])
            self._reply(*vault.answer(self.path, body))

        def _reply(self, status: int, body: dict[str, object]) -> None:
            if "Authorization" not in self.headers:
                status, body = 401, {}
            data = json.dumps(body).encode()
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", _CHALLENGE)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Quiet."""

    return Handler
