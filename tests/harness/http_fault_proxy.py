"""An HTTP proxy in front of Azurite that hurts requests and replies on order, and says so.

It speaks whole HTTP messages, so that a fault can hit "the second Put Block" and not just a byte
count. A fault that never fired makes `close` raise: a test of a fault must not pass without it.
"""

import re
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

PUT_BLOCK = r"PUT .*comp=block(&|$)"
PUT_BLOCK_LIST = r"PUT .*comp=blocklist"
PUT_BLOB = r"PUT /[^?]*$"
GET_BLOB = r"GET /[^?]*$"
LIST_BLOBS = r"GET .*comp=list"


class Harm(StrEnum):
    """What a fault does to one exchange."""

    ANSWER = "answer instead of the server"
    DROP_BEFORE = "close the connection, the server never hears of it"
    DROP_AFTER = "the server does it, the reply is lost"
    HALF_REQUEST = "half of the body reaches the server, then both connections end"
    FLIP_REQUEST_BIT = "one bit of the request's body is turned"
    HALF_REPLY = "the reply ends in the middle of its body"
    CHANGE_REPLY = "the reply gets another status or other headers"


@dataclass(frozen=True, slots=True)
class Fault:
    """Harm to the next `times` requests whose "METHOD target" matches `where`, after `skip`."""

    harm: Harm
    where: str
    times: int = 1
    skip: int = 0
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


def error_reply(fault: Fault) -> Reply:
    """As Azure words an error: the code in a header and in the XML body."""
    code = fault.headers.get("x-ms-error-code", "InternalError")
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>scripted</Message></Error>"
    headers = (*fault.headers.items(), ("Content-Type", "application/xml"))
    return Reply(fault.status, headers, body.encode())


def azure_error(where: str, status: int, code: str, *, times: int = 1, **headers: str) -> Fault:
    """`Retry_After="1"` and the like become headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    told = {"x-ms-error-code": code, **named}
    return Fault(Harm.ANSWER, where, times=times, status=status, headers=told)


class _Dropped(Exception):
    """The connection to the client ends here, without a word more."""


class HttpFaultProxy:
    """Listens on 127.0.0.1 on a port of its own. `requests` is all it saw, `fired` all it hurt."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self._lock = Lock()
        self._faults: list[Fault] = []
        self.requests: list[str] = []
        self.fired: list[Fault] = []
        self._server = self._listen(0)

    @property
    def url(self) -> str:
        """What to give the client instead of the upstream's address."""
        host, port = self._server.server_address[:2]
        return urlunsplit(self._upstream._replace(netloc=f"{host!s}:{port}"))

    def script(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def forget(self) -> None:
        """Drop what is left of the script, once it has done enough harm."""
        with self._lock:
            assert self.fired, "no fault has fired yet"
            self._faults.clear()

    def seen(self, where: str) -> int:
        """How many requests matched, hurt or not."""
        return sum(re.match(where, request) is not None for request in self.requests)

    @contextmanager
    def outage(self) -> Iterator[Callable[[], None]]:
        """Nobody listens; the yielded function ends it, the end of the block does at the latest."""
        port = int(self._server.server_address[1])
        self._stop()
        ended = Lock()

        def end() -> None:
            if ended.acquire(blocking=False):
                self._server = self._listen(port)

        try:
            yield end
        finally:
            end()

    def close(self) -> None:
        self._stop()
        assert not self._faults, f"faults that never fired: {self._faults}"

    def _listen(self, port: int) -> "_Server":
        proxy = self

        class Handler(_Handler):
            exchange = staticmethod(proxy._exchange)

        server = _Server(("127.0.0.1", port), Handler)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_connections()

    def _take(self, request: str) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for index, fault in enumerate(self._faults):
                if not re.match(fault.where, request):
                    continue
                if fault.skip:
                    self._faults[index] = replace(fault, skip=fault.skip - 1)
                    return None
                if fault.times > 1:
                    self._faults[index] = replace(fault, times=fault.times - 1)
                else:
                    del self._faults[index]
                self.fired.append(fault)
                return fault
        return None

    def _exchange(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        fault = self._take(f"{method} {target}")
        if fault is None:
            return self._forward(method, target, headers, body)
        match fault.harm:
            case Harm.ANSWER:
                return error_reply(fault)
            case Harm.DROP_BEFORE:
                raise _Dropped
            case Harm.DROP_AFTER:
                self._forward(method, target, headers, body)
                raise _Dropped
            case Harm.HALF_REQUEST:
                self._send_half(method, target, headers, body)
                raise _Dropped
            case Harm.FLIP_REQUEST_BIT:
                middle = len(body) // 2
                hurt = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
                return self._forward(method, target, headers, hurt)
            case Harm.HALF_REPLY:
                reply = self._forward(method, target, headers, body)
                return replace(reply, body=reply.body[: len(reply.body) // 2])
            case Harm.CHANGE_REPLY:
                return _changed(self._forward(method, target, headers, body), fault)

    def _forward(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        connection = self._connect()
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, tuple(answer.getheaders()), answer.read())
        except (OSError, HTTPException) as error:
            raise _Dropped from error
        finally:
            connection.close()

    def _send_half(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        connection = self._connect()
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body[: len(body) // 2])
        connection.close()

    def _connect(self) -> HTTPConnection:
        return HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=30)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        """Kept-alive connections would otherwise outlive the server."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what these tests are about: no traceback."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    exchange: Callable[[str, str, dict[str, str], bytes], Reply]

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            reply = self.exchange(self.command, self.path, dict(self.headers.items()), body)
        except _Dropped:
            self._reset()
            return
        self._answer(reply)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _answer(self, reply: Reply) -> None:
        self.send_response_only(reply.status)
        announced = next((v for k, v in reply.headers if k.lower() == "content-length"), None)
        for name, value in reply.headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        length = announced if announced is not None else str(len(reply.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
            self.close_connection = len(reply.body) < int(length)

    def _reset(self) -> None:
        """RST instead of FIN: what a load balancer sends that has forgotten the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on stderr."""


def _changed(reply: Reply, fault: Fault) -> Reply:
    changed = {name.lower() for name in fault.headers}
    kept = tuple((name, value) for name, value in reply.headers if name.lower() not in changed)
    added = tuple((name, value) for name, value in fault.headers.items() if value)
    return replace(reply, status=fault.status or reply.status, headers=kept + added)
