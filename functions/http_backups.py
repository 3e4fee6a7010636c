"""GET api/backups: what there is, with its three facts. POST api/backups: take one now."""

from datetime import datetime
from typing import Literal

import azure.functions as func
from pydantic import Field

from functions.callers import Role
from functions.http_protocol import Body
from functions.job_requests import Accepted, accept, protected_cluster
from functions.operations import Call, Operation, serve
from functions.wiring import services
from shared.catalogue.ports import CataloguedBackup
from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.field_types import Cluster, Label
from shared.jobs.messages import BackupJob
from shared.repository.documents import Finding, FullInstead

blueprint = func.Blueprint()


class BackupQuery(Body):
    """`before` is the last label of the previous page."""

    cluster: Cluster | None = None
    before: Label | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class BackupRequest(Body):
    cluster: Cluster
    kind: Literal["full", "incremental"] = "full"


class ListedBackup(Body):
    """Committed, verified and proven are three facts; the times say when each was found."""

    cluster: str
    label: str
    kind: BackupKind
    committed_at: datetime
    verified: bool
    verified_at: datetime | None
    verification_failed_at: datetime | None
    ancestor_failed_at: datetime | None
    proven: bool
    proven_at: datetime | None
    drill_failed_at: datetime | None
    geo_safe_at: datetime | None
    suspect: bool
    stored_bytes: int
    plain_bytes: int
    findings: tuple[Finding, ...]
    parent: str | None
    depth: int
    instead_of_incremental: FullInstead | None


class BackupPage(Body):
    backups: tuple[ListedBackup, ...]


def list_backups(call: Call[BackupQuery]) -> BackupPage:
    """Newest first. A cluster that is known to nobody is 404; one without backups is not."""
    query, catalogue = call.asked, call.services.catalogue
    cluster = None if query.cluster is None else cluster_name(query.cluster)
    found = catalogue.backups(cluster, limit=query.limit, before=query.before)
    if cluster is not None and not found:
        protected_cluster(call.services, cluster)
    return BackupPage(backups=tuple(listed(backup) for backup in found))


def request_backup(call: Call[BackupRequest]) -> Accepted:
    cluster = protected_cluster(call.services, call.asked.cluster)
    job = BackupJob(job_id=call.new_id(), cluster=cluster, kind=BackupKind(call.asked.kind))
    accept(call, job)
    return Accepted(job_id=job.job_id, status_url=f"/api/jobs/{job.job_id}")


def listed(backup: CataloguedBackup) -> ListedBackup:
    facts = backup.facts
    return ListedBackup(
        cluster=backup.ref.cluster,
        label=backup.ref.label.text,
        kind=backup.ref.kind,
        committed_at=facts.committed_at,
        verified=facts.verified,
        verified_at=facts.verified_at,
        verification_failed_at=facts.verification_failed_at,
        ancestor_failed_at=facts.ancestor_failed_at,
        proven=facts.proven,
        proven_at=facts.proven_at,
        drill_failed_at=facts.drill_failed_at,
        geo_safe_at=facts.geo_safe_at,
        suspect=facts.suspect,
        stored_bytes=backup.stored_bytes,
        plain_bytes=backup.plain_bytes,
        findings=backup.findings,
        parent=backup.parent,
        depth=backup.depth,
        instead_of_incremental=backup.instead_of_incremental,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="backups",
        summary="List backups, newest first",
        handle=list_backups,
        asked=BackupQuery,
        answer=BackupPage,
        statuses=(404,),
    ),
    Operation(
        method="POST",
        path="backups",
        summary="Take a backup now",
        handle=request_backup,
        asked=BackupRequest,
        answer=Accepted,
        may=frozenset({Role.OPERATOR}),
        status=202,
        changes=True,
        statuses=(404, 409),
    ),
)


@blueprint.route("backups", methods=["GET", "POST"], auth_level=func.AuthLevel.ANONYMOUS)
def http_backups(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
