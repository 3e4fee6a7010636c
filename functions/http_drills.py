"""POST api/drills: rehearse a restore. GET api/drills/{id}: how it goes, and its report."""

from datetime import datetime
from uuid import UUID

import azure.functions as func

from functions.callers import Role
from functions.http_protocol import Body
from functions.job_requests import Accepted, accept, protected_cluster
from functions.operations import Call, Nothing, Operation, serve
from functions.wiring import Services, services
from shared.catalogue.ports import JobRecord
from shared.domain.backup import BackupLabel
from shared.domain.field_types import Cluster, DrillTargetText, Label
from shared.domain.job import JobState, JobVerb
from shared.errors import JobNotFound, NoSecondary
from shared.jobs.messages import DrillJob
from shared.repository.documents import DrillReport
from shared.repository.layout import BackupRef

blueprint = func.Blueprint()


class DrillRequest(Body):
    """Without a label, the newest backup; without a target, no WAL beyond it.

    `target`: `latest`, `random`, or an instant with its offset. `from_secondary`: the copy in the
    second region is drilled, as it is there.
    """

    cluster: Cluster
    label: Label | None = None
    target: DrillTargetText | None = None
    from_secondary: bool = False


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


def request_drill(call: Call[DrillRequest]) -> Accepted:
    asked, services = call.asked, call.services
    cluster = protected_cluster(services, asked.cluster)
    if asked.from_secondary and not services.settings.has_secondary:
        raise NoSecondary("the repository has no secondary that could be read")
    if asked.label is not None:
        services.catalogue.backup(BackupRef(cluster, BackupLabel.parse(asked.label)))
    job = DrillJob(
        job_id=call.new_id(),
        cluster=cluster,
        label=asked.label,
        target=asked.target,
        from_secondary=asked.from_secondary,
    )
    accept(call, job)
    return Accepted(job_id=job.job_id, status_url=f"/api/drills/{job.job_id}")


def show_drill(call: Call[Nothing]) -> DrillStatus:
    job = _drill_job(call)
    return _status(job, _report(call.services, job))


def _drill_job(call: Call[Nothing]) -> JobRecord:
    """Raises JobNotFound, in the same words for no id, no job, and a job that is no drill."""
    unknown = JobNotFound("there is no such drill")
    try:
        job = call.services.catalogue.job(call.uuid("id", unknown))
    except JobNotFound:
        raise unknown from None
    if job.verb is not JobVerb.DRILL:
        raise unknown
    return job


def _report(services: Services, job: JobRecord) -> DrillReport | None:
    finished = job.progress.finished
    if finished is None or finished.result is None:
        return None
    return services.catalogue.drill_report(job.cluster, finished.result)


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


OPERATIONS = (
    Operation(
        method="POST",
        path="drills",
        summary="Rehearse a restore",
        handle=request_drill,
        asked=DrillRequest,
        answer=Accepted,
        may=frozenset({Role.OPERATOR}),
        status=202,
        changes=True,
        statuses=(404, 409),
    ),
    Operation(
        method="GET",
        path="drills/{id}",
        summary="Show a drill and its report",
        handle=show_drill,
        asked=Nothing,
        answer=DrillStatus,
        statuses=(404,),
    ),
)


@blueprint.route("drills/{id?}", methods=["GET", "POST"], auth_level=func.AuthLevel.ANONYMOUS)
def http_drills(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
