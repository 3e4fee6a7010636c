"""Telemetry that stays in memory, and questions about what was recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.telemetry.meters import Telemetry, telemetry_of
from shared.telemetry.metric_names import METRICS


@dataclass(frozen=True)
class Point:
    """`value` is the sum of a histogram, whose values `count` counts."""

    attributes: Mapping[str, object]
    value: float
    count: int = 1


@dataclass(frozen=True)
class Recorded:
    """What a test passes in as `telemetry`, and asks afterwards."""

    telemetry: Telemetry
    _reader: InMemoryMetricReader
    _spans: InMemorySpanExporter = field(repr=False)

    def metrics(self) -> dict[str, list[Point]]:
        """All that was recorded so far, by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: _points(metric)
            for of_resource in data.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        }

    def values(self, name: str) -> dict[tuple[object, ...], float]:
        """By the values of the attributes, in the order of their names."""
        return {
            tuple(point.attributes[key] for key in sorted(point.attributes)): point.value
            for point in self.metrics().get(name, [])
        }

    def assert_that_it_is_as_the_table_says(self, emitted_by: str) -> None:
        """Each metric with its attributes, and by whom it is due."""
        for name, points in self.metrics().items():
            assert METRICS[name].emitted_by == emitted_by, name
            for point in points:
                assert set(point.attributes) == set(METRICS[name].attributes), name

    def spans(self, name: str) -> list[ReadableSpan]:
        """Those that ended, in that order."""
        return [span for span in self._spans.get_finished_spans() if span.name == name]


def recorded_telemetry() -> Recorded:
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    return Recorded(telemetry_of(meters, tracers), reader, spans)


def _points(metric: Metric) -> list[Point]:
    found = []
    for point in metric.data.data_points:
        attributes = dict(point.attributes or {})
        if isinstance(point, HistogramDataPoint):
            found.append(Point(attributes, point.sum, point.count))
        elif isinstance(point, NumberDataPoint):
            found.append(Point(attributes, point.value))
    return found
