"""POST api/drills: rehearse a restore. GET api/drills/{id}: how it goes, and its report."""

from datetime import datetime
from uuid import UUID

import azure.functions as func

from functions.http_protocol import Body, answer, parse_body, requested_job_id, respond
from functions.job_requests import Accepted, accept, protected_cluster
from functions.wiring import Services, services
from shared.catalogue.ports import JobRecord
from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.field_types import Cluster, DrillTargetText, Label
from shared.domain.job import JobState, JobVerb
from shared.errors import JobNotFound, RequestInvalid
from shared.jobs.messages import DrillJob
from shared.repository.documents import DrillReport
from shared.repository.layout import BackupRef

blueprint = func.Blueprint()


class DrillRequest(Body):
    """Without a label, the newest backup; without a target, no WAL beyond it.

    `target`: `latest`, `random`, or an instant with its offset.
    """

    cluster: Cluster
    label: Label | None = None
    target: DrillTargetText | None = None


class DrillStatus(Body):
    """The job, and the signed report once the drill came to a verdict."""

    job_id: UUID
    cluster: str
    state: JobState
    attempt: int
    requested_at: datetime | None
    started_at: datetime | None
    heard_at: datetime | None
    done_bytes: int
    total_bytes: int
    error_code: str | None
    error_fact: str | None
    report: DrillReport | None


@blueprint.route("drills/{id?}", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION)
def http_drills(req: func.HttpRequest) -> func.HttpResponse:
    handle = request_drill if req.method == "POST" else show_drill
    return answer(lambda: handle(services(), req))


def request_drill(services: Services, req: func.HttpRequest) -> func.HttpResponse:
    if req.route_params.get("id"):
        raise RequestInvalid("a drill is asked for at api/drills, without an id")
    asked = parse_body(req, DrillRequest)
    job_id = requested_job_id(req, services.new_id)
    cluster = protected_cluster(services, asked.cluster)
    if asked.label is not None:
        services.catalogue.backup(BackupRef(cluster, BackupLabel.parse(asked.label)))
    job = DrillJob(job_id=job_id, cluster=cluster, label=asked.label, target=asked.target)
    accept(services, job)
    return respond(Accepted(job_id=job_id, status_url=f"/api/drills/{job_id}"), status=202)


def show_drill(services: Services, req: func.HttpRequest) -> func.HttpResponse:
    job = _drill_job(services, req.route_params.get("id") or "")
    report = _report(services, job.cluster, job)
    return respond(_status(job, report))


def _drill_job(services: Services, text: str) -> JobRecord:
    """Raises JobNotFound, in the same words for no id, no job, and a job that is no drill."""
    unknown = JobNotFound("there is no such drill")
    try:
        job = services.catalogue.job(UUID(text))
    except (ValueError, JobNotFound):
        raise unknown from None
    if job.verb is not JobVerb.DRILL:
        raise unknown
    return job


def _report(services: Services, cluster: ClusterName, job: JobRecord) -> DrillReport | None:
    finished = job.progress.finished
    if finished is None or finished.result is None:
        return None
    return services.catalogue.drill_report(cluster, finished.result)


def _status(job: JobRecord, report: DrillReport | None) -> DrillStatus:
    progress, finished = job.progress, job.progress.finished
    return DrillStatus(
        job_id=job.job_id,
        cluster=job.cluster,
        state=progress.state,
        attempt=progress.attempt,
        requested_at=job.requested_at,
        started_at=progress.started_at,
        heard_at=progress.heard_at,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        error_code=finished.error_code if finished else None,
        error_fact=finished.error_fact if finished else None,
        report=report,
    )
