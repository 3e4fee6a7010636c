"""Rows of a Log Analytics workspace, as our telemetry becomes them, and alert rules over them.

Metrics are recorded by the real instruments, and events go through the handler of production, so
that a query meets the names and texts that a workspace will hold.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from opentelemetry._logs import LogRecord
from opentelemetry._logs import NoOpLogger as NoOp

from shared.event_log import LOGGER, log_event
from shared.telemetry.azure_monitor import EventsToAzureMonitor
from shared.telemetry.metric_names import METRICS
from tests.harness.bicep_deployment import Resource
from tests.harness.kusto_subset import run
from tests.harness.recorded_telemetry import recorded_telemetry

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""By table."""

NOTHING: Final[Rows] = {"AppMetrics": (), "AppTraces": ()}
_SPANS: Final = {
    f"PT{minutes}M": timedelta(minutes=minutes) for minutes in (1, 5, 10, 15, 30, 45)
} | {
    **{f"PT{hours}H": timedelta(hours=hours) for hours in range(1, 7)},
    **{f"P{days}D": timedelta(days=days) for days in (1, 2)},
}


@dataclass(frozen=True)
class Value:
    """One recording of a metric."""

    metric: str
    value: float
    attributes: Mapping[str, str]


def metric_rows(at: datetime, *values: Value) -> Rows:
    """What one export sends. Each value has the attributes that its metric is said to have."""
    recorded = recorded_telemetry()
    for one in values:
        assert tuple(one.attributes) == METRICS[one.metric].attributes, one
        recorded.telemetry.record(one.metric, one.value, **one.attributes)
    rows = [
        {
            "TimeGenerated": at,
            "Name": name,
            "Sum": float(point.value),
            "ItemCount": point.count,
            "Properties": {key: str(value) for key, value in point.attributes.items()},
        }
        for name, points in recorded.metrics().items()
        for point in points
    ]
    return {"AppMetrics": rows, "AppTraces": ()}


def event_row(at: datetime, event: str, **fields: object) -> Rows:
    """What `log_event` of these fields sends."""
    return event_rows(at, lambda: log_event(event, **fields))  # type: ignore[arg-type]


def event_rows(at: datetime, act: Callable[[], object]) -> Rows:
    """What all events send that are written meanwhile."""
    kept = _Kept("kept")
    handler, level = EventsToAzureMonitor(kept), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        act()
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
    rows = [
        {"TimeGenerated": at, "Message": one.body, "Properties": one.attributes}
        for one in kept.records
    ]
    return {"AppMetrics": (), "AppTraces": rows}


def together(*parts: Rows) -> Rows:
    return {name: [row for part in parts for row in part[name]] for name in NOTHING}


class _Kept(NoOp):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.records: list[LogRecord] = []

    def emit(self, record: LogRecord | None = None, **_: object) -> None:
        assert record is not None
        self.records.append(record)


@dataclass(frozen=True)
class AlertRule:
    """A rule as Azure evaluates it: the query over the rows of its window."""

    rule: Resource

    @property
    def name(self) -> str:
        return str(self.rule.get("properties.actions.customProperties.alert"))

    @property
    def severity(self) -> int:
        return int(self.rule.get("properties.severity"))

    @property
    def window(self) -> timedelta:
        return _SPANS[self.rule.get("properties.windowSize")]

    @property
    def evaluated_each(self) -> timedelta:
        return _SPANS[self.rule.get("properties.evaluationFrequency")]

    @property
    def query(self) -> str:
        return str(self._condition["query"])

    @property
    def dimensions(self) -> list[str]:
        return [dimension["name"] for dimension in self._condition["dimensions"]]

    def fires(self, rows: Rows, now: datetime) -> list[tuple[str, ...]]:
        """The values of its dimensions, of each alert that is open now."""
        within = {
            table: [row for row in found if now - self.window < row["TimeGenerated"] <= now]
            for table, found in rows.items()
        }
        count = "Count", "GreaterThan", 0
        condition = self._condition
        asked = condition["timeAggregation"], condition["operator"], condition["threshold"]
        assert asked == count, "no other condition is evaluated here"
        answer = run(self.query, within, now)
        return sorted(tuple(row[name] for name in self.dimensions) for row in answer)

    @property
    def _condition(self) -> Mapping[str, Any]:
        [condition] = self.rule.get("properties.criteria.allOf")
        return dict(condition)
