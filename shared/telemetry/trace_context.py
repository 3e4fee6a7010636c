"""Traces across processes: W3C's traceparent in messages, spans here.

https://www.w3.org/TR/trace-context/ has the format.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.errors import PgkeepError
from shared.telemetry.meters import Telemetry

_HEADER = "traceparent"


def current_traceparent() -> str | None:
    """Of the span that runs here, if it is recorded anywhere."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(_HEADER)


@contextmanager
def span(
    telemetry: Telemetry,
    name: str,
    *,
    parent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    **attributes: str,
) -> Iterator[Span]:
    """A span, current inside; child of `parent`, or else of the current one.

    A parent that cannot be read is none. What ends it early marks it as failed, by its code alone:
    the fact stands in the log.
    """
    started = telemetry.tracer.start_span(
        name, context=_context(parent), kind=kind, attributes=attributes
    )
    with use_span(
        started, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ) as running:
        try:
            yield running
        except BaseException as error:
            fail(running, error.code if isinstance(error, PgkeepError) else type(error).__name__)
            raise


def fail(failed: Span, code: str) -> None:
    failed.set_status(StatusCode.ERROR, code)
    failed.set_attribute("error_code", code)


def _context(parent: str | None) -> Context | None:
    """None leaves the current one."""
    if parent is None:
        return None
    return TraceContextTextMapPropagator().extract({_HEADER: parent})
