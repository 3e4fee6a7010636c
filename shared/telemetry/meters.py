"""What records metrics and spans. It is passed in, never global; NO_TELEMETRY does nothing.

OpenTelemetry's interface alone is imported here, which takes a few milliseconds; what exports is
for whoever configures it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider, NoOpMeterProvider
from opentelemetry.metrics import _Gauge as Gauge
from opentelemetry.trace import NoOpTracerProvider, Tracer, TracerProvider

from shared.telemetry.metric_names import METRICS, MetricRule
from shared.version import VERSION

SCOPE: Final = "pgkeep"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Instruments for every metric of METRICS, and a tracer. Safe to use from any thread."""

    tracer: Tracer
    _instruments: Mapping[str, Counter | Histogram | Gauge]

    def record(self, name: str, value: float, **attributes: str) -> None:
        """Add to a counter, set a gauge, or add a point to a histogram. Sends nothing itself."""
        instrument = self._instruments[name]
        if isinstance(instrument, Counter):
            instrument.add(value, attributes)
        elif isinstance(instrument, Histogram):
            instrument.record(value, attributes)
        else:
            instrument.set(value, attributes)


def telemetry_of(meters: MeterProvider, tracers: TracerProvider) -> Telemetry:
    meter = meters.get_meter(SCOPE, VERSION)
    instruments = {rule.name: _instrument(meter, rule) for rule in METRICS.values()}
    return Telemetry(tracers.get_tracer(SCOPE, VERSION), instruments)


def _instrument(meter: Meter, rule: MetricRule) -> Counter | Histogram | Gauge:
    match rule.kind:
        case "counter":
            return meter.create_counter(rule.name, rule.unit, rule.description)
        case "gauge":
            return meter.create_gauge(rule.name, rule.unit, rule.description)
        case "histogram":
            return meter.create_histogram(
                rule.name,
                rule.unit,
                rule.description,
                explicit_bucket_boundaries_advisory=rule.buckets,
            )


NO_TELEMETRY: Final = telemetry_of(NoOpMeterProvider(), NoOpTracerProvider())
