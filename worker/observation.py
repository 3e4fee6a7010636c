"""Where the worker's telemetry goes: to Azure Monitor, to whoever scrapes it, to both, or nowhere.

Nothing of it is imported before it is asked for, and nothing of it may fail or hold up a job: what
cannot be set up is logged and left out, and what cannot be sent in time is lost.
"""

import atexit
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.telemetry.meters import NO_TELEMETRY, Telemetry, telemetry_of

if TYPE_CHECKING:
    from worker.metrics_endpoint import CheckLife, MetricsEndpoint

METRICS_ADDRESS: Final = "PGKEEP_METRICS_ADDRESS"
CONNECTION_STRING: Final = "APPLICATIONINSIGHTS_CONNECTION_STRING"
ROLE: Final = "pgkeep-worker"
# Of the 30 s that a container host leaves after SIGTERM, a job may have used 15.
FLUSH_S: Final = 5.0

Shutdown = Callable[[], object]
"""Sends what waits, and ends. May take as long as the other side does not answer."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Telemetry that is being sent. End it."""

    telemetry: Telemetry
    shutdowns: Sequence[Shutdown] = ()
    endpoint: "MetricsEndpoint | None" = None

    def end(self, limit_s: float = FLUSH_S) -> None:
        """Sends what was recorded, and waits so long at most."""
        for each in self.shutdowns:  # or the interpreter would call it again, and wait a minute
            atexit.unregister(each)
        sending = threading.Thread(target=_all, args=[self.shutdowns], daemon=True)
        sending.start()
        sending.join(limit_s)
        if sending.is_alive():
            log_event("telemetry-lost", level=logging.WARNING, waited_s=limit_s)
        if self.endpoint is not None:
            self.endpoint.close()


def _all(shutdowns: Sequence[Shutdown]) -> None:
    """At one time: none waits for another that gets no answer."""
    threads = [threading.Thread(target=_end, args=[each], daemon=True) for each in shutdowns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _end(shutdown: Shutdown) -> None:
    try:
        shutdown()
    except Exception as error:  # noqa: BLE001 - OpenTelemetry raises no narrower one
        log_event("telemetry-shutdown-failed", level=logging.WARNING, fact=str(error))


def begin_observation(
    environment: Mapping[str, str], *, scraped: bool, check_life: "CheckLife | None" = None
) -> Observation:
    """As the environment asks for; without `scraped`, nobody may fetch, nor ask `check_life`.
    Raises nothing.
    """
    endpoint = _endpoint(environment.get(METRICS_ADDRESS), check_life) if scraped else None
    connection = environment.get(CONNECTION_STRING)
    if connection:
        try:
            return _with_azure_monitor(connection, endpoint)
        except Exception as error:  # noqa: BLE001 - whatever it is, a job matters more
            code = getattr(error, "code", type(error).__name__)
            fact = getattr(error, "fact", str(error))
            log_event("telemetry-not-exported", level=logging.ERROR, code=code, fact=fact)
    return Observation(NO_TELEMETRY) if endpoint is None else _scraped_only(endpoint)


def _endpoint(address: str | None, check_life: "CheckLife | None") -> "MetricsEndpoint | None":
    if not address:
        return None
    from worker.metrics_endpoint import serve_metrics

    try:
        endpoint = serve_metrics(address, check_life)
    except PgkeepError as error:
        log_event("metrics-not-served", level=logging.ERROR, code=error.code, fact=error.fact)
        return None
    log_event("metrics-served", host=endpoint.host, port=endpoint.port)
    return endpoint


def _with_azure_monitor(connection: str, endpoint: "MetricsEndpoint | None") -> Observation:
    from shared.telemetry.azure_monitor import export_to_azure_monitor

    readers = [] if endpoint is None else [endpoint.reader]
    exported = export_to_azure_monitor(connection, ROLE, readers)
    return Observation(exported.telemetry, exported.shutdowns, endpoint)


def _scraped_only(endpoint: "MetricsEndpoint") -> Observation:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.trace import NoOpTracerProvider

    from shared.telemetry.resource import resource_of

    meters = MeterProvider([endpoint.reader], resource_of(ROLE))
    return Observation(telemetry_of(meters, NoOpTracerProvider()), (meters.shutdown,), endpoint)
