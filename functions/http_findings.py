"""GET api/findings: what is wrong in the fleet, since when, and what to do next."""

from datetime import datetime
from typing import Final

import azure.functions as func
from pydantic import AwareDatetime, Field

from functions.http_protocol import Body
from functions.job_requests import protected_cluster
from functions.operations import Call, Operation, serve
from functions.wiring import services
from shared.catalogue.ports import RecordedFinding
from shared.domain.cluster import ClusterName
from shared.domain.field_types import Cluster
from shared.domain.finding_rules import FindingCode, FindingScope, Severity
from shared.domain.findings import REPOSITORY

blueprint = func.Blueprint()


# Those that closed are kept for good, and may be asked for since ever.
_LOOKED_AT: Final = 10_000


class FindingQuery(Body):
    """`repository` asks for findings of no cluster. `closed_since` adds those that are over."""

    cluster: Cluster | None = None
    repository: bool = False
    scope: FindingScope | None = None
    severity: Severity | None = None
    code: FindingCode | None = None
    closed_since: AwareDatetime | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class ShownFinding(Body):
    """`cluster` is null for what is wrong with the whole repository. `action` is what to do."""

    cluster: str | None
    code: FindingCode
    scope: FindingScope
    severity: Severity
    object: str
    since: datetime
    opened_at: datetime
    closed_at: datetime | None
    fact: str
    action: str
    evidence: dict[str, str]


class FindingPage(Body):
    """`more`: there are others beyond the limit that fit."""

    findings: tuple[ShownFinding, ...]
    more: bool


def list_findings(call: Call[FindingQuery]) -> FindingPage:
    """Newest first."""
    query = call.asked
    recorded = call.services.catalogue.findings(
        _cluster(call), closed_since=query.closed_since, limit=_LOOKED_AT
    )
    fitting = [one for one in recorded if _fits(query, one)]
    shown = tuple(_shown(one) for one in fitting[: query.limit])
    more = len(fitting) > query.limit or len(recorded) == _LOOKED_AT
    return FindingPage(findings=shown, more=more)


def _cluster(call: Call[FindingQuery]) -> ClusterName | None:
    if call.asked.cluster is not None:
        return protected_cluster(call.services, call.asked.cluster)
    return REPOSITORY if call.asked.repository else None


def _fits(query: FindingQuery, recorded: RecordedFinding) -> bool:
    finding = recorded.finding
    return (
        query.scope in {None, finding.scope}
        and query.severity in {None, finding.severity}
        and query.code in {None, finding.code}
    )


def _shown(recorded: RecordedFinding) -> ShownFinding:
    finding = recorded.finding
    return ShownFinding(
        cluster=None if recorded.cluster == REPOSITORY else recorded.cluster,
        code=finding.code,
        scope=finding.scope,
        severity=finding.severity,
        object=finding.object,
        since=finding.since,
        opened_at=recorded.opened_at,
        closed_at=recorded.closed_at,
        fact=finding.fact,
        action=finding.action,
        evidence=dict(finding.evidence),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="findings",
        summary="List what is wrong, newest first",
        handle=list_findings,
        asked=FindingQuery,
        answer=FindingPage,
        statuses=(404,),
    ),
)


@blueprint.route("findings", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def http_findings(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
