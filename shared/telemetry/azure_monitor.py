"""Telemetry to Azure Monitor: metrics, spans, and pgkeep's events as rows of AppTraces.

The exporter reads APPLICATIONINSIGHTS_AUTHENTICATION_STRING itself, which says as which identity
it sends: https://learn.microsoft.com/azure/azure-monitor/app/opentelemetry-configuration.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from azure.monitor.opentelemetry import configure_azure_monitor
from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter
from opentelemetry._logs import Logger, LogRecord, SeverityNumber, get_logger_provider
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk._logs import LoggerProvider as ExportedLogs
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics import MeterProvider as ExportedMetrics
from opentelemetry.sdk.metrics import _Gauge as Gauge
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider as ExportedTraces
from opentelemetry.trace import get_tracer_provider

from shared.errors import InvalidInput
from shared.event_log import LOGGER, log_event
from shared.telemetry.meters import SCOPE, Telemetry, telemetry_of
from shared.telemetry.resource import resource_of
from shared.version import VERSION

# A span for each request to storage would be thousands in a backup, each with the blob's name.
_INSTRUMENTATIONS: Final = (
    *("azure_sdk", "django", "fastapi", "flask", "httpx", "httpx2"),
    *("psycopg2", "requests", "urllib", "urllib3"),
)
# The distribution hands a logger's records over as they are; ours have fields, which we flatten.
_NOBODY_S_LOGGER: Final = "pgkeep.handed-over-by-nobody"
EXPORTERS: Final = ("azure.monitor.opentelemetry", "opentelemetry")
_FACT_LENGTH: Final = 200
_SEVERITIES: Final = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class ConnectionStringInvalid(InvalidInput):
    """A connection string that is none of Application Insights."""

    code = "connection-string-invalid"
    hint = "Copy APPLICATIONINSIGHTS_CONNECTION_STRING from the resource's overview."


@dataclass(frozen=True, slots=True)
class Exported:
    """What records, and what sends the rest of it when the process ends: each may take a minute
    when Azure Monitor does not answer, and the interpreter calls them if nobody else has.
    """

    telemetry: Telemetry
    shutdowns: tuple[Callable[[], None], ...]


def export_to_azure_monitor(
    connection_string: str, role: str, readers: Sequence[MetricReader] = ()
) -> Exported:
    """Once per process. `role` is AppRoleName there; `readers` get the metrics, too.

    Sends nothing yet, and never raises afterwards: what cannot be sent is logged, once. Raises
    ConnectionStringInvalid.
    """
    log_trouble_once()
    try:
        configure_azure_monitor(
            connection_string=connection_string,
            resource=resource_of(role),
            logger_name=_NOBODY_S_LOGGER,
            sampling_ratio=1.0,  # a job is one trace: there are few, and none may be missing
            enable_live_metrics=False,
            enable_performance_counters=False,
            disable_offline_storage=True,  # the root file system is read-only
            instrumentation_options={name: {"enabled": False} for name in _INSTRUMENTATIONS},
        )
    except ValueError as error:
        raise ConnectionStringInvalid(str(error).lower().rstrip(".")) from None
    meters = _meters(connection_string, role, readers)
    tracers, logs = get_tracer_provider(), get_logger_provider()
    LOGGER.addHandler(EventsToAzureMonitor(logs.get_logger(SCOPE, VERSION)))
    exported, unused = ExportedMetrics | ExportedTraces | ExportedLogs, get_meter_provider()
    providers = (meters, tracers, logs, unused)
    shutdowns = (each.shutdown for each in providers if isinstance(each, exported))
    return Exported(telemetry_of(meters, tracers), tuple(shutdowns))


def _meters(connection_string: str, role: str, readers: Sequence[MetricReader]) -> ExportedMetrics:
    """Of our own: in the distribution's nothing is recorded, so it sends nothing."""
    sender = AzureMonitorMetricExporter(
        connection_string=connection_string, disable_offline_storage=True
    )
    reader = PeriodicExportingMetricReader(GaugesOnce(sender))
    return ExportedMetrics([reader, *readers], resource_of(role))


class GaugesOnce(MetricExporter):
    """Hands on what was recorded since the last time, gauges included.

    Azure Monitor's exporter by itself repeats the last value of a gauge each minute for as long as
    the process lives: a finding that is gone would stay open, and no alert of it would end.
    """

    def __init__(self, sender: MetricExporter) -> None:
        delta = AggregationTemporality.DELTA
        super().__init__(preferred_temporality=dict.fromkeys((Counter, Histogram, Gauge), delta))
        self._sender = sender

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        return self._sender.export(metrics_data, timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._sender.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        self._sender.shutdown(timeout_millis, **kwargs)


class EventsToAzureMonitor(logging.Handler):
    """An event's name as the message, its fields as flat properties."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        properties = _flat(getattr(record, "fields", {}))
        if record.exc_info:
            properties["exception"] = logging.Formatter().formatException(record.exc_info)
        self._logger.emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                severity_text=record.levelname,
                severity_number=_SEVERITIES.get(record.levelno, SeverityNumber.UNSPECIFIED),
                body=record.getMessage(),
                attributes=properties,
            )
        )


def _flat(fields: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in fields.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


def log_trouble_once() -> None:
    """From now on: the first complaint of an exporter becomes an event, the others nothing."""
    handler = _TroubleOnce()
    for name in EXPORTERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.WARNING)
        logger.propagate = False


class _TroubleOnce(logging.Handler):
    """An outage of Azure Monitor is one event of ours, and not a line a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._told:
            return
        self._told = True
        log_event(
            "telemetry-export-failed",
            level=logging.WARNING,
            exporter=record.name,
            fact=record.getMessage()[:_FACT_LENGTH],
        )
