"""The backups that a recovery on this host may begin with."""

from shared.domain.cluster import ClusterName
from shared.repository.known_backups import KnownBackups, read_known_backups
from worker.commands.services import Services

__all__ = ["KnownBackups", "read_backups"]


def read_backups(services: Services, cluster: ClusterName, label: str | None) -> KnownBackups:
    """See read_known_backups."""
    threads = services.settings.worker.transfer_threads
    return read_known_backups(services.store, services.pinned, cluster, label, threads=threads)
