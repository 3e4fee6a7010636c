"""Delete what retention no longer wants: plan, compare, delete children first, report."""

from dataclasses import dataclass
from uuid import UUID

from shared.settings import ClusterSettings
from worker.commands.services import Services


@dataclass(frozen=True, slots=True)
class ExpireRequest:
    """`run_id` makes a run of the queue idempotent."""

    run_id: UUID | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ExpireOutcome:
    """Placeholder of RETENTION."""

    id: str


def expire(services: Services, cluster: ClusterSettings, request: ExpireRequest) -> ExpireOutcome:
    raise NotImplementedError
