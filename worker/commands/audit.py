"""The audit report of a period: what was promised, done and proven, from the repository."""

from dataclasses import dataclass

from shared.jobs.messages import AuditJob
from shared.settings import ClusterSettings
from worker.commands.services import Services


@dataclass(frozen=True, slots=True)
class AuditOutcome:
    """Placeholder of UPKEEP."""

    id: str


def audit(services: Services, cluster: ClusterSettings, job: AuditJob) -> AuditOutcome:
    raise NotImplementedError
