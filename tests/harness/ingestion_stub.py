"""An ingestion endpoint of Application Insights on loopback: takes what exporters send, and keeps
it.

Rules it follows (Microsoft's breeze API): POST /v2.1/track takes a JSON array of envelopes, gzipped
or not, and answers how many it took. With `silent` it takes the connection and never answers.
"""

import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

# Nothing but what the tests asked for shall leave the host: the exporter's own statistics, and its
# remote configuration, go to Microsoft otherwise.
QUIET: Final = {
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
}
_KEY: Final = "00000000-0000-0000-0000-000000000001"


@dataclass
class Ingestion:
    """What arrived so far, in its order."""

    url: str
    envelopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> Mapping[str, str]:
        """For a process that shall send its telemetry here."""
        connection = f"InstrumentationKey={_KEY};IngestionEndpoint={self.url}"
        return {**QUIET, "APPLICATIONINSIGHTS_CONNECTION_STRING": connection}

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The points of a metric: `value`, and `properties` beside it."""
        found = []
        for data in self._base_data("MetricData"):
            found += [
                {"value": point["value"], "properties": data["properties"]}
                for point in data["metrics"]
                if point["name"] == name
            ]
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """The fields of the log events of this name."""
        messages = self._base_data("MessageData")
        return [data["properties"] for data in messages if data["message"] == name]

    def operations(self, name: str) -> list[str]:
        """The traces in which the log events of this name were written."""
        return [
            envelope["tags"].get("ai.operation.id", "")
            for envelope in self.envelopes
            if envelope["data"]["baseType"] == "MessageData"
            and envelope["data"]["baseData"]["message"] == name
        ]

    def spans(self, name: str) -> list[dict[str, Any]]:
        """Envelopes of spans, whose tags name the trace and the parent."""
        return [
            envelope
            for envelope in self.envelopes
            if envelope["data"]["baseType"] in {"RemoteDependencyData", "RequestData"}
            and envelope["data"]["baseData"]["name"] == name
        ]

    def _base_data(self, kind: str) -> list[dict[str, Any]]:
        return [
            envelope["data"]["baseData"]
            for envelope in self.envelopes
            if envelope["data"]["baseType"] == kind
        ]


@contextmanager
def ingestion(*, silent: bool = False) -> Iterator[Ingestion]:
    """Listens on a free port of loopback until the end."""
    release = threading.Event()
    received = Ingestion("")
    handler = partial(_Handler, received, release if silent else None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        received.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield received
        finally:
            release.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, received: Ingestion, hang: threading.Event | None, *rest: Any) -> None:
        self._received = received
        self._hang = hang
        super().__init__(*rest)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._received.asked.set()
        if self._hang is not None:
            self._hang.wait()
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        taken = json.loads(body)
        self._received.bodies.append(body)
        self._received.envelopes += taken
        answer = {"itemsReceived": len(taken), "itemsAccepted": len(taken), "errors": []}
        self._send(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
