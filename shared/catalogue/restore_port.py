"""What the control plane asks of the catalogue about restores that people ask for."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from shared.domain.cluster import ClusterName
from shared.domain.restore_request import RestoreRequest, RestoreState, RestoreVerdict
from shared.errors import NotFound


class RestoreNotFound(NotFound):
    """No restore request has this id."""

    code = "restore-not-found"
    hint = "Take the id from the answer to the request that made it."


class RestoreRequests(Protocol):
    """Each is asked for once and decided once, by whoever comes first."""

    def ask_restore(self, request: RestoreRequest) -> RestoreRequest:
        """What is recorded under this id: the request itself, or what the same person asked for
        with it before. Raises RequestConflict when that was something else.
        """
        ...

    def decide_restore(
        self, request_id: UUID, verdict: RestoreVerdict, traceparent: str | None = None
    ) -> RestoreRequest:
        """The decided request; an approval records its job in the same transaction, which then
        carries `traceparent`.

        Raises RestoreNotFound, OwnApproval, RestoreLapsed, RestoreDecided.
        """
        ...

    def restore_request(self, request_id: UUID) -> RestoreRequest:
        """Raises RestoreNotFound."""
        ...

    def restore_requests(
        self,
        cluster: ClusterName | None = None,
        state: RestoreState | None = None,
        *,
        now: datetime,
        limit: int,
        before: UUID | None = None,
    ) -> Sequence[RestoreRequest]:
        """Newest first, of the state that they are in `now`; `before` is the id after which the
        previous page ended.
        """
        ...

    def overdue_restores(self, now: datetime) -> Sequence[RestoreRequest]:
        """Undecided ones whose time is over, of which nobody has written down that they lapsed."""
        ...
