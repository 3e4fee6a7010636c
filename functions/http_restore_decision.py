"""POST api/restores/{id}/decision: approve or refuse a restore, or take it back, in time."""

from typing import Annotated, Literal

import azure.functions as func
from pydantic import Field

from functions.callers import Role
from functions.http_protocol import Body
from functions.job_requests import send_now_or_later
from functions.operations import Call, Operation, serve
from functions.restore_view import ShownRestore, found_restore, shown_restore
from functions.wiring import services
from shared.domain.restore_request import Decision, RestoreVerdict
from shared.telemetry.trace_context import current_traceparent

blueprint = func.Blueprint()

# A sentence for people: no control characters, which terminals and logs would obey.
Reason = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_DECIDERS = {
    Decision.APPROVE: Role.APPROVER,
    Decision.REFUSE: Role.APPROVER,
    Decision.CANCEL: Role.OPERATOR,
}


class RestoreDecision(Body):
    """Approvers approve and refuse, operators cancel."""

    decision: Literal[Decision.APPROVE, Decision.REFUSE, Decision.CANCEL]
    reason: Reason | None = None


def decide(call: Call[RestoreDecision]) -> ShownRestore:
    """The first decision counts; an approval makes the job."""
    asked, services = call.asked, call.services
    call.caller.demand(_DECIDERS[asked.decision])
    known = found_restore(call)
    verdict = RestoreVerdict(asked.decision, call.caller.person, services.clock(), asked.reason)
    known.decided(verdict)  # what is certain to be refused is not written down as allowed
    call.record(f"restore.{asked.decision}", f"restore {known.id}", reason=asked.reason)
    decided = services.catalogue.decide_restore(known.id, verdict, current_traceparent())
    send_now_or_later(services)
    return shown_restore(services, decided)


OPERATIONS = (
    Operation(
        method="POST",
        path="restores/{id}/decision",
        summary="Approve, refuse or cancel a restore",
        handle=decide,
        asked=RestoreDecision,
        answer=ShownRestore,
        may=frozenset({Role.OPERATOR, Role.APPROVER}),
        changes=True,
        statuses=(404, 409),
    ),
)


@blueprint.route("restores/{id}/decision", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
def http_restore_decision(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
