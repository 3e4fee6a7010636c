"""A restore that somebody asks for and somebody else must approve, before a job exists.

What nobody decides in time lapses: an old wish must not be fulfilled on a new day.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.domain.cluster import ClusterName
from shared.errors import Conflict, Denied


class RestoreState(StrEnum):
    REQUESTED = "requested"
    APPROVED = "approved"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"


class Decision(StrEnum):
    """Of people; LAPSE is written down in nobody's name once the time is over."""

    APPROVE = "approve"
    REFUSE = "refuse"
    CANCEL = "cancel"
    LAPSE = "lapse"

    @property
    def state(self) -> RestoreState:
        return _STATES[self]


_STATES = {
    Decision.APPROVE: RestoreState.APPROVED,
    Decision.REFUSE: RestoreState.REFUSED,
    Decision.CANCEL: RestoreState.CANCELLED,
    Decision.LAPSE: RestoreState.LAPSED,
}


class OwnApproval(Denied):
    """Somebody approves what they asked for themselves."""

    code = "own-approval"
    hint = "Another person with the role approver decides."


class RestoreDecided(Conflict):
    """A restore request that was decided before."""

    code = "restore-decided"
    hint = "Look at the request; ask for a new restore if you need one."


class RestoreLapsed(Conflict):
    """A decision about a restore request whose time is over."""

    code = "request-lapsed"
    hint = "Ask for the restore again, and have it decided within `http.restore_lapses_hours`."


@dataclass(frozen=True, slots=True)
class Person:
    """Who asked or decided: `id` tells people apart, `name` is for reading."""

    id: str
    name: str


# In whose name a request lapses.
NOBODY: Final = Person("pgkeep", "pgkeep")


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
    instant; `label` None lets the plan choose the backup. From `lapses_at` on nobody may decide.
    """

    id: UUID
    cluster: ClusterName
    target: str
    label: str | None
    to: str
    requested_by: Person
    requested_at: datetime
    lapses_at: datetime
    verdict: RestoreVerdict | None = None

    def state_at(self, now: datetime) -> RestoreState:
        """What has lapsed has, whether or not anybody wrote it down."""
        if self.verdict is not None:
            return self.verdict.decision.state
        return RestoreState.LAPSED if self.lapses_at <= now else RestoreState.REQUESTED

    def asks_the_same(self, other: "RestoreRequest") -> bool:
        """Whether one key may stand for both: the words and the person, not the moment."""
        return _words(self) == _words(other)

    def decided(self, verdict: RestoreVerdict) -> "RestoreRequest":
        """The request with its verdict; the same again, by the same person, changes nothing.

        Raises OwnApproval, RestoreLapsed, RestoreDecided.
        """
        if verdict.decision is Decision.APPROVE and verdict.by.id == self.requested_by.id:
            raise OwnApproval(f"restore {self.id} was asked for by who would approve it")
        if self._says_the_same(verdict):
            return self
        state = self.state_at(verdict.at)
        if verdict.decision is not Decision.LAPSE and state is RestoreState.LAPSED:
            raise RestoreLapsed(f"restore {self.id} lapsed at {self.lapses_at:%F %T%z}")
        if self.verdict is not None:
            raise RestoreDecided(f"restore {self.id} is {state} already")
        return replace(self, verdict=verdict)

    def _says_the_same(self, verdict: RestoreVerdict) -> bool:
        known = self.verdict
        return known is not None and (known.decision, known.by.id) == (
            verdict.decision,
            verdict.by.id,
        )


def _words(request: RestoreRequest) -> tuple[object, ...]:
    asked = (request.id, request.cluster, request.target, request.label, request.to)
    return (*asked, request.requested_by.id)
