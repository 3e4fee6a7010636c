"""GET api/backups: what there is, with its three facts. POST api/backups: take one now."""

from datetime import datetime
from typing import Literal

import azure.functions as func
from pydantic import Field

from functions.http_protocol import Body, answer, parse_body, parse_query, requested_job_id, respond
from functions.job_requests import Accepted, accept, protected_cluster
from functions.wiring import Services, services
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
    suspect: bool
    stored_bytes: int
    plain_bytes: int
    findings: tuple[Finding, ...]
    parent: str | None
    depth: int
    instead_of_incremental: FullInstead | None


class BackupPage(Body):
    backups: tuple[ListedBackup, ...]


@blueprint.route("backups", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION)
def http_backups(req: func.HttpRequest) -> func.HttpResponse:
    handle = request_backup if req.method == "POST" else list_backups
    return answer(lambda: handle(services(), req))


def list_backups(services: Services, req: func.HttpRequest) -> func.HttpResponse:
    """Newest first. A cluster that is known to nobody is 404; one without backups is not."""
    query = parse_query(req, BackupQuery)
    cluster = None if query.cluster is None else cluster_name(query.cluster)
    found = services.catalogue.backups(cluster, limit=query.limit, before=query.before)
    if cluster is not None and not found:
        protected_cluster(services, cluster)
    return respond(BackupPage(backups=tuple(_listed(backup) for backup in found)))


def request_backup(services: Services, req: func.HttpRequest) -> func.HttpResponse:
    asked = parse_body(req, BackupRequest)
    job_id = requested_job_id(req, services.new_id)
    cluster = protected_cluster(services, asked.cluster)
    accept(services, BackupJob(job_id=job_id, cluster=cluster, kind=BackupKind(asked.kind)))
    return respond(Accepted(job_id=job_id), status=202)


def _listed(backup: CataloguedBackup) -> ListedBackup:
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
        suspect=facts.suspect,
        stored_bytes=backup.stored_bytes,
        plain_bytes=backup.plain_bytes,
        findings=backup.findings,
        parent=backup.parent,
        depth=backup.depth,
        instead_of_incremental=backup.instead_of_incremental,
    )
