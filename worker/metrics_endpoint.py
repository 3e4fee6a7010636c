"""Metrics for Prometheus to fetch, GET /metrics, and a sign of life for hosts of containers that
can only ask by HTTP, GET /healthz.

It asks for no password and encrypts nothing. So it listens on loopback, unless its address names
another host; what it shows are names of clusters and numbers.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricReader
from prometheus_client import CollectorRegistry, Metric, start_http_server

from shared.errors import InvalidInput, PgkeepError, Unavailable

LIFE_PATH: Final = "/healthz"
_LOOPBACK: Final = "127.0.0.1"

CheckLife = Callable[[], str]
"""Says how long ago the process last showed that it turns, or raises a PgkeepError."""


class MetricsAddressInvalid(InvalidInput):
    """An address for the metrics that is no host:port."""

    code = "metrics-address-invalid"
    hint = "Write PGKEEP_METRICS_ADDRESS as host:port, or :port for loopback alone."


class MetricsNotServed(Unavailable):
    """Nobody can listen at the address for the metrics."""

    code = "metrics-not-served"
    hint = "Another process has the port, or the host has no such address: choose another."


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """Answers, in threads of its own, with what `reader` collects. Close it."""

    reader: MetricReader
    host: str
    port: int
    _server: WSGIServer
    _thread: threading.Thread

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(address: str, check_life: CheckLife | None = None) -> MetricsEndpoint:
    """At `host:port`; port 0 is any that is free. `reader` is for one MeterProvider. Without
    `check_life` nobody knows whether the process turns, and LIFE_PATH is not found.

    Raises MetricsAddressInvalid, MetricsNotServed.
    """
    host, port = _parse(address)
    registry = _OneScrapeAtATime()
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsNotServed(f"{host}:{port}: {error.strerror}") from None
    metrics = server.get_app()
    if metrics is not None:
        server.set_app(_with_life(metrics, check_life))
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    return MetricsEndpoint(reader, host, server.server_port, server, thread)


def _parse(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname or _LOOPBACK, parts.port
    except ValueError:
        raise MetricsAddressInvalid(f"{address!r} is not host:port") from None
    if port is None or address != parts.netloc or "@" in address:
        raise MetricsAddressInvalid(f"{address!r} is not host:port")
    return host, port


def _with_life(metrics: WSGIApplication, check_life: CheckLife | None) -> WSGIApplication:
    def answer(environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environment["PATH_INFO"] != LIFE_PATH:
            return metrics(environment, start_response)
        status, reason = _life(check_life)
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [] if environment["REQUEST_METHOD"] == "HEAD" else [f"{reason}\n".encode()]

    return answer


def _life(check_life: CheckLife | None) -> tuple[str, str]:
    if check_life is None:
        return "404 Not Found", "no heartbeat is kept here"
    try:
        return "200 OK", check_life()
    except PgkeepError as error:
        return "503 Service Unavailable", error.code  # its fact may name paths: the log has them


class _OneScrapeAtATime(CollectorRegistry):
    """Two scrapes at one time would find their metrics in one another's answer: the exporter hands
    what it collects over by a queue that they share.
    """

    def __init__(self) -> None:
        super().__init__()
        self._scraping = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self._scraping:
            return list(super().collect())
