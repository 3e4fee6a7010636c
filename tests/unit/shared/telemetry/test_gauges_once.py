"""Azure Monitor gets a gauge's value when it was set, and not each minute ever after."""

from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
)
from opentelemetry.trace import NoOpTracerProvider

from shared.telemetry import metric_names as names
from shared.telemetry.azure_monitor import GaugesOnce
from shared.telemetry.meters import telemetry_of

_NEVER_BY_ITSELF: Final = float("inf")


class Sent(MetricExporter):
    """What would go to Azure Monitor, by cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[dict[object, float]] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any
    ) -> MetricExportResult:
        assert timeout_millis
        metrics = [
            metric
            for of_resource in metrics_data.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        ]
        points = [point for metric in metrics for point in metric.data.data_points]
        self.values.append(
            {
                (point.attributes or {})["cluster"]: point.value
                for point in points
                if isinstance(point, NumberDataPoint)
            }
        )
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return bool(timeout_millis)

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        assert timeout_millis


def test_a_finding_that_is_gone_is_told_no_more_while_the_process_lives_on() -> None:
    sent = Sent()
    reader = PeriodicExportingMetricReader(GaugesOnce(sent), _NEVER_BY_ITSELF)
    meters = MeterProvider([reader], shutdown_on_exit=False)
    telemetry = telemetry_of(meters, NoOpTracerProvider())
    kind = {"code": "wal-behind", "severity": "critical"}
    telemetry.record(names.FINDINGS, 1, cluster="demo", **kind)
    assert meters.force_flush()
    telemetry.record(names.FINDINGS, 0, cluster="_repository", **kind)
    assert meters.force_flush()
    assert meters.force_flush()
    meters.shutdown()
    assert [values for values in sent.values if values] == [{"demo": 1}, {"_repository": 0}]
