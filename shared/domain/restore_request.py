"""A restore that somebody asks for and somebody else must approve, before a job exists."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from shared.domain.cluster import ClusterName
from shared.errors import Conflict, Denied


class RestoreState(StrEnum):
    REQUESTED = "requested"
    APPROVED = "approved"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class Decision(StrEnum):
    APPROVE = "approve"
    REFUSE = "refuse"
    CANCEL = "cancel"

    @property
    def state(self) -> RestoreState:
        return _STATES[self]


_STATES = {
    Decision.APPROVE: RestoreState.APPROVED,
    Decision.REFUSE: RestoreState.REFUSED,
    Decision.CANCEL: RestoreState.CANCELLED,
}


class OwnApproval(Denied):
    """Somebody approves what they asked for themselves."""

    code = "own-approval"
    hint = "Another person with the role approver decides."


class RestoreDecided(Conflict):
    """A restore request that was decided before."""

    code = "restore-decided"
    hint = "Look at the request; ask for a new restore if you need one."


@dataclass(frozen=True, slots=True)
class Person:
    """Who asked or decided: `id` tells people apart, `name` is for reading."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class RestoreVerdict:
    """What was decided of a request, by whom, and why, as they put it."""

    decision: Decision
    by: Person
    at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """`id` is the id of its job as well, once it is approved. `to` is `latest`, `immediate` or an
    instant; `label` None lets the plan choose the backup.
    """

    id: UUID
    cluster: ClusterName
    target: str
    label: str | None
    to: str
    requested_by: Person
    requested_at: datetime
    verdict: RestoreVerdict | None = None

    @property
    def state(self) -> RestoreState:
        return self.verdict.decision.state if self.verdict else RestoreState.REQUESTED

    def asks_the_same(self, other: "RestoreRequest") -> bool:
        """Whether one key may stand for both: the words and the person, not the moment."""
        return _words(self) == _words(other)

    def decided(self, verdict: RestoreVerdict) -> "RestoreRequest":
        """The request with its verdict; the same again, by the same person, changes nothing.

        Raises OwnApproval, RestoreDecided.
        """
        if verdict.decision is Decision.APPROVE and verdict.by.id == self.requested_by.id:
            raise OwnApproval(f"restore {self.id} was asked for by who would approve it")
        if self.verdict is None:
            return replace(self, verdict=verdict)
        if (self.verdict.decision, self.verdict.by.id) == (verdict.decision, verdict.by.id):
            return self
        raise RestoreDecided(f"restore {self.id} is {self.state} already")


def _words(request: RestoreRequest) -> tuple[object, ...]:
    asked = (request.id, request.cluster, request.target, request.label, request.to)
    return (*asked, request.requested_by.id)
