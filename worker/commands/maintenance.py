"""Index maintenance inside a window: rebuild invalid and bloated indexes, renew statistics."""

from dataclasses import dataclass
from datetime import datetime

from shared.settings import ClusterSettings
from worker.commands.services import Services


@dataclass(frozen=True, slots=True)
class MaintenanceRequest:
    """Nothing is begun that would not end by `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class MaintenanceOutcome:
    """Placeholder of UPKEEP."""


def maintain(
    services: Services, cluster: ClusterSettings, request: MaintenanceRequest
) -> MaintenanceOutcome:
    raise NotImplementedError
