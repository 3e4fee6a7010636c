"""`pgkeep list` and `pgkeep show`: what the repository holds, read from its signed documents."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shared.domain.cluster import ClusterName
from shared.errors import PgkeepError
from shared.repository.backups import StoredBackup, find_backup, list_backups, read_backup
from shared.repository.layout import BackupRef
from worker.commands.opened_backup import open_backup
from worker.commands.services import Services
from worker.commands.source_facts import read_facts
from worker.pipeline.in_order import map_in_order
from worker.postgres.configuration_facts import ConfigurationFacts


@dataclass(frozen=True, slots=True)
class ListedBackup:
    """`stored` is None when the document cannot be believed; `problem` then says why."""

    ref: BackupRef
    stored: StoredBackup | None
    problem: str | None = None


def list_all(services: Services, cluster: ClusterName | None) -> Iterator[ListedBackup]:
    """Every committed backup, oldest first per kind; a bad document is listed, not skipped."""

    def read(ref: BackupRef) -> ListedBackup:
        try:
            return ListedBackup(ref, read_backup(services.store, ref, services.pinned))
        except PgkeepError as error:
            return ListedBackup(ref, None, str(error))

    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        yield from map_in_order(executor, read, list_backups(services.store, cluster), depth=16)


def show(services: Services, cluster: ClusterName, label: str | None) -> StoredBackup:
    """One backup's document. Raises BackupNotFound and what reading a document raises."""
    return read_backup(services.store, find_backup(services.store, cluster, label), services.pinned)


def recorded_configuration_of(services: Services, stored: StoredBackup) -> ConfigurationFacts:
    """What the server had set when the backup was taken. Raises as opening a backup does."""
    return read_facts(open_backup(services, stored)).server.configuration
