"""What the control plane asks of the catalogue about restores that people ask for."""

from collections.abc import Sequence
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

    def decide_restore(self, request_id: UUID, verdict: RestoreVerdict) -> RestoreRequest:
        """The decided request; an approval records its job in the same transaction.

        Raises RestoreNotFound, OwnApproval, RestoreDecided.
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
        limit: int,
        before: UUID | None = None,
    ) -> Sequence[RestoreRequest]:
        """Newest first; `before` is the id after which the previous page ended."""
        ...
