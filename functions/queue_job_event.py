"""A worker reports: started, progress, finished. The report is a hint; documents are the facts."""

import logging

import azure.functions as func
from opentelemetry.trace import SpanKind

from functions.intake import message_text, set_aside, take_in_report
from functions.wiring import Services, services
from shared.domain.cluster import cluster_name
from shared.domain.job import JobEventKind, JobVerb
from shared.errors import ClusterUnknown
from shared.event_log import log_event
from shared.jobs.messages import EVENT_QUEUE, JobEvent, parse_event
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.telemetry.metric_names import JOB_OUTCOMES
from shared.telemetry.trace_context import span

blueprint = func.Blueprint()


@blueprint.queue_trigger("message", queue_name=EVENT_QUEUE, connection="PGKEEP_HOST_QUEUES")
def queue_job_event(message: func.QueueMessage) -> None:
    take_in_event(services(), message.get_body())


def take_in_event(services: Services, body: bytes) -> None:
    """Fold the event into its job; at its end, read the report that it wrote.

    Raises MessageInvalid for what is no event: after five tries the host sets it aside.
    """
    event = parse_event(message_text(body))
    if event.cluster not in {cluster.name for cluster in services.settings.cluster}:
        error = ClusterUnknown(f"job event of cluster {event.cluster}, which no settings name")
        set_aside(services, f"{EVENT_QUEUE}/{event.job_id}", error)
        return
    with span(
        services.telemetry,
        "take in event",
        parent=event.traceparent,
        kind=SpanKind.CONSUMER,
        verb=event.verb.value,
        event=event.kind.value,
        cluster=event.cluster,
        job_id=str(event.job_id),
    ):
        _fold(services, event)


def _fold(services: Services, event: JobEvent) -> None:
    now = services.clock()
    job = services.catalogue.record_event(event, now)
    if event.kind is JobEventKind.FINISHED and job.ended_at == now:  # the queue may repeat itself
        outcome = "succeeded" if event.succeeded else "failed"
        services.telemetry.record(JOB_OUTCOMES, 1, verb=event.verb.value, outcome=outcome)
    if job.progress.has_overtaken(event.report()):
        level, token = logging.WARNING, job.progress.token
        log_event("job-overtaken", level=level, job_id=job.job_id, token=event.token, newest=token)
    log_event("job-event", job_id=job.job_id, kind=event.kind, state=job.progress.state)
    report = _report_of(event)
    if report is not None:
        take_in_report(services, report)


def _report_of(event: JobEvent) -> BlobName | None:
    if event.kind is not JobEventKind.FINISHED or event.result is None:
        return None
    cluster = cluster_name(event.cluster)
    match event.verb:
        case JobVerb.VERIFY:
            return layout.verification_report(cluster, event.result)
        case JobVerb.DRILL:
            return layout.drill_report(cluster, event.result)
        case JobVerb.EXPIRE:
            return layout.expiry_report(cluster, event.result)
        case _:
            return None
