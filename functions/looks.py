"""A timer's look: one span, and the sign of life that alerts wait for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from functions.wiring import Services
from shared.telemetry.metric_names import LOOKS
from shared.telemetry.trace_context import span


@contextmanager
def look(
    services: Services, timer: Literal["dispatch", "freshness", "reconcile"]
) -> Iterator[None]:
    """Counted when it ends, well or not; what ends it early is raised on."""
    outcome = "error"
    try:
        with span(services.telemetry, f"timer {timer}"):
            yield
        outcome = "ok"
    finally:
        services.telemetry.record(LOOKS, 1, timer=timer, outcome=outcome)
