"""A chain with its keys: every link authenticated, its parts all there, ready to be read."""

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from shared.domain.backup_index import BackupIndex
from shared.repository.chains import StoredChain
from shared.repository.header_verification import verify_links
from worker.commands.opened_backup import OpenedBackup, open_backup, require_whole
from worker.commands.services import Services
from worker.pipeline.sealed_download import SealedBlob


@dataclass(frozen=True, slots=True)
class OpenedChain:
    """The links in order, the full first; a full backup is a chain of one."""

    links: tuple[OpenedBackup, ...]

    @property
    def newest(self) -> OpenedBackup:
        return self.links[-1]

    @property
    def block_size(self) -> int:
        return self.newest.stored.document.postgres.block_size

    def indexes(self, executor: Executor) -> tuple[BackupIndex, ...]:
        """Of every link, the full first; of older ones, only what the newest one's files need."""
        newest = self.newest.index(executor)
        table = newest.members
        wanted = {table.whole_path(number): table.path(number) for number in range(len(table))}
        older = [link.index(executor, wanted) for link in self.links[:-1]]
        return (*older, newest)

    def volumes(self) -> Mapping[tuple[str, str], SealedBlob]:
        """By label and name; each is opened, which proves its length."""
        return {
            (link.stored.ref.label.text, volume.name): link.volume(volume.name)
            for link in self.links
            for volume in link.stored.document.volumes
        }


def open_chain(services: Services, chain: StoredChain) -> OpenedChain:
    """Raises BackupIncomplete when a link lacks a part, and what opening a backup raises."""
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        opened = executor.map(partial(open_backup, services), chain.links)
        verified = verify_links(services.store, chain.links, services.pinned, executor.map)
        for verification in verified:
            require_whole(verification)
        return OpenedChain(tuple(opened))
