"""One attempt at a job, as telemetry sees it: a span, a span for each phase, and how it ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry.context import get_current
from opentelemetry.trace import Span, SpanKind

from shared.errors import PgkeepError
from shared.jobs.messages import AnyJob, DrillJob, RestoreJob, VerifyJob
from shared.telemetry import metric_names as names
from shared.telemetry.meters import Telemetry
from shared.telemetry.trace_context import fail, span
from worker.commands.services import Progress, Services

JOB_SPAN = "pgkeep.job"
PHASE_SPAN = "pgkeep.phase"


class PhaseSpans:
    """Another progress, each of whose phases is a span below the one that is current now.

    It lasts until the next one begins, in whatever thread. End the last one.
    """

    def __init__(self, telemetry: Telemetry, progress: Progress) -> None:
        self._tracer = telemetry.tracer
        self._progress = progress
        self._parent = get_current()
        self._open: Span | None = None

    def phase(self, name: str) -> None:
        self.end()
        self._open = self._tracer.start_span(PHASE_SPAN, self._parent, attributes={"phase": name})
        self._progress.phase(name)

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        self._progress.advance(done_bytes, total_bytes)

    def end(self) -> None:
        if self._open is not None:
            self._open.end()
            self._open = None


class JobWatch:
    """How an attempt ended; whoever says nothing leaves the job to the next attempt."""

    def __init__(self, job_span: Span) -> None:
        self._span = job_span
        self.outcome = "released"

    def succeeded(self, result: str | None) -> None:
        """`result` is a backup's label or a report's id, as events have it."""
        self.outcome = "succeeded"
        if result is not None:
            self._span.set_attribute("result", result)

    def failed(self, error: PgkeepError, *, again: bool) -> None:
        """`again`: the job is tried once more, and not over."""
        self.outcome = "released" if again else "failed"
        fail(self._span, error.code)


@contextmanager
def watched(services: Services, job: AnyJob) -> Iterator[tuple[JobWatch, Services]]:
    """The attempt is what happens inside, with the services that are given back."""
    clock, telemetry = services.clocks.monotonic, services.telemetry
    began = clock()
    with span(
        telemetry, JOB_SPAN, parent=job.traceparent, kind=SpanKind.CONSUMER, **_attributes(job)
    ) as job_span:
        watch, phases = JobWatch(job_span), PhaseSpans(telemetry, services.progress)
        try:
            yield watch, replace(services, progress=phases)
        finally:
            phases.end()
            job_span.set_attribute("outcome", watch.outcome)
            seconds = clock() - began
            telemetry.record(names.JOB_DURATION, seconds, verb=job.verb, outcome=watch.outcome)


def _attributes(job: AnyJob) -> dict[str, str]:
    found = {"verb": job.verb.value, "cluster": job.cluster, "job_id": str(job.job_id)}
    if isinstance(job, VerifyJob | DrillJob | RestoreJob) and job.label is not None:
        found["label"] = job.label
    return found
