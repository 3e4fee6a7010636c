"""A restore that was asked for, as the HTTP interface shows it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from functions.http_protocol import Body
from functions.job_requests import JobStatus, job_status
from functions.operations import Call
from functions.wiring import Services
from shared.catalogue.ports import JobRecord
from shared.catalogue.restore_port import RestoreNotFound
from shared.domain.restore_request import Decision, RestoreRequest, RestoreState


class ShownRestore(Body):
    """`job` is null until the restore is approved, and when its job was forgotten since."""

    id: UUID
    status_url: str
    cluster: str
    target: str
    label: str | None
    to: str
    state: RestoreState
    requested_by: str
    requested_by_name: str
    requested_at: datetime
    lapses_at: datetime
    decided_by: str | None
    decided_by_name: str | None
    decided_at: datetime | None
    reason: str | None
    job: JobStatus | None


def found_restore(call: Call[Any]) -> RestoreRequest:
    """The one that the path names. Raises RestoreNotFound, in the same words for every other id."""
    unknown = RestoreNotFound("there is no such restore")
    try:
        return call.services.catalogue.restore_request(call.uuid("id", unknown))
    except RestoreNotFound:
        raise unknown from None


def shown_restore(services: Services, request: RestoreRequest) -> ShownRestore:
    [shown] = shown_restores(services, [request])
    return shown


def shown_restores(
    services: Services, requests: Sequence[RestoreRequest]
) -> tuple[ShownRestore, ...]:
    """One question to the catalogue, however many there are."""
    approved = [one.id for one in requests if _is_approved(one)]
    jobs = services.catalogue.jobs_of(approved) if approved else {}
    now = services.clock()
    return tuple(_shown(one, jobs.get(one.id), now) for one in requests)


def _is_approved(request: RestoreRequest) -> bool:
    return request.verdict is not None and request.verdict.decision is Decision.APPROVE


def _shown(request: RestoreRequest, job: JobRecord | None, now: datetime) -> ShownRestore:
    verdict = request.verdict
    return ShownRestore(
        id=request.id,
        status_url=f"/api/restores/{request.id}",
        cluster=request.cluster,
        target=request.target,
        label=request.label,
        to=request.to,
        state=request.state_at(now),
        requested_by=request.requested_by.id,
        requested_by_name=request.requested_by.name,
        requested_at=request.requested_at,
        lapses_at=request.lapses_at,
        decided_by=verdict.by.id if verdict else None,
        decided_by_name=verdict.by.name if verdict else None,
        decided_at=verdict.at if verdict else None,
        reason=verdict.reason if verdict else None,
        job=job_status(job) if job else None,
    )
