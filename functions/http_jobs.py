"""GET api/jobs: what was asked of the workers, and how it goes."""

from uuid import UUID

import azure.functions as func
from pydantic import Field

from functions.http_protocol import Body
from functions.job_requests import JobStatus, job_status, protected_cluster
from functions.operations import Call, Nothing, Operation, serve
from functions.wiring import services
from shared.domain.field_types import Cluster
from shared.domain.job import JobState
from shared.errors import JobNotFound

blueprint = func.Blueprint()


class JobQuery(Body):
    """`before` is the last job id of the previous page."""

    cluster: Cluster | None = None
    state: JobState | None = None
    before: UUID | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class JobPage(Body):
    jobs: tuple[JobStatus, ...]


def list_jobs(call: Call[JobQuery]) -> JobPage:
    """Newest first."""
    query = call.asked
    cluster = query.cluster and protected_cluster(call.services, query.cluster)
    found = call.services.catalogue.jobs(
        cluster or None, query.state, limit=query.limit, before=query.before
    )
    return JobPage(jobs=tuple(job_status(job) for job in found))


def show_job(call: Call[Nothing]) -> JobStatus:
    """Raises JobNotFound, in the same words for every id of no job."""
    unknown = JobNotFound("there is no such job")
    try:
        return job_status(call.services.catalogue.job(call.uuid("id", unknown)))
    except JobNotFound:
        raise unknown from None


OPERATIONS = (
    Operation(
        method="GET",
        path="jobs",
        summary="List jobs, newest first",
        handle=list_jobs,
        asked=JobQuery,
        answer=JobPage,
        statuses=(404,),
    ),
    Operation(
        method="GET",
        path="jobs/{id}",
        summary="Show a job",
        handle=show_job,
        asked=Nothing,
        answer=JobStatus,
        statuses=(404,),
    ),
)


@blueprint.route("jobs/{id?}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def http_jobs(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
