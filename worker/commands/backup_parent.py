"""Finding what an incremental backup builds on: read from the repository, judged by pure rules."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.parent_choice import (
    NoParent,
    ParentCandidate,
    ServerState,
    choose_parent,
)
from shared.errors import Denied, PgkeepError
from shared.repository import layout
from shared.repository.backups import StoredBackup, read_backup, read_key_record
from shared.repository.belief import is_unbelievable
from shared.repository.chains import StoredChain, follow_chain
from shared.repository.layout import BackupRef
from shared.repository.proofs import newest_verification
from shared.settings import ClusterSettings
from worker.commands.backup_source import BackupSourceServer, await_start_beyond
from worker.commands.cluster_login import connect_to
from worker.commands.committed_backups import believed, newest_first
from worker.commands.opened_backup import BackupIncomplete, OpenedBackup, require_complete
from worker.commands.services import Services
from worker.postgres.cluster_facts import ServerFacts
from worker.postgres.wal_summaries import wal_summaries

# Older ones lie behind a chain's limit or the summaries that the server keeps, or both.
_LOOK_BACK: Final = 16


@dataclass(frozen=True, slots=True)
class Parent:
    """A backup to build on, and PostgreSQL's manifest of it."""

    backup: StoredBackup
    manifest: bytes


def find_parent(
    services: Services, cluster: ClusterSettings, source: BackupSourceServer, server: ServerFacts
) -> Parent | NoParent:
    """The parent that the settings want; why there is none if there is none.

    On an idle standby it may wait for a restartpoint. Raises what reading the repository and the
    server raises, but not what is wrong with single backups.
    """
    search = _Search(services, cluster_name(cluster.name))
    wanted = cluster.incremental
    state = _state_of(source.cluster, server)
    while True:
        chosen = choose_parent(
            search.candidates(), state, chain_limit=wanted.chain_limit, prefer=wanted.parent
        )
        if isinstance(chosen, NoParent):
            return chosen
        if search.is_whole(chosen.label):
            break
    backup = search.chains[chosen.label].newest
    if not await_start_beyond(cluster, source, backup.document.stop_lsn):
        return NoParent(
            "standby-idle",
            f"the standby has replayed no checkpoint since backup {chosen.label} ended",
        )
    return _opened(services, backup)


def _state_of(cluster: ClusterSettings, server: ServerFacts) -> ServerState:
    with closing(connect_to(cluster)(cluster.database)) as connection:
        summaries = wal_summaries(connection, server.timeline)
    return ServerState(
        system_identifier=server.system_identifier,
        major=server.version_num // 10_000,
        timeline=server.timeline,
        block_size=server.block_size,
        data_checksums=server.data_checksums,
        summaries=summaries,
    )


def _opened(services: Services, backup: StoredBackup) -> Parent | NoParent:
    """With the one key that a writer of backups may unwrap."""
    kid = backup.document.object(layout.BACKUP_MANIFEST).kid
    try:
        record = read_key_record(services.store, backup.ref.cluster, kid, services.pinned)
        keys = {kid: services.key_ring.unwrap(record)}
    except Denied as error:
        return NoParent("manifest-key-unusable", error.fact)
    opened = OpenedBackup(backup, services.store, keys)
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        return Parent(backup, opened.manifest(executor))


class _Search:
    """The newest backups and their chains, read only as far as they are asked for."""

    def __init__(self, services: Services, cluster: ClusterName) -> None:
        self._services = services
        refs = islice(newest_first(services, cluster), _LOOK_BACK)
        self._unread = self._read(believed(services, refs))
        self._known: list[ParentCandidate] = []
        self._documents: dict[BackupRef, StoredBackup] = {}
        self._verified: dict[str, bool | None] = {}
        self.chains: dict[str, StoredChain] = {}

    def candidates(self) -> Iterator[ParentCandidate]:
        """Newest first; those that were read before come as they are known now."""
        yield from self._known
        for candidate in self._unread:
            self._known.append(candidate)
            yield candidate

    def is_whole(self, label: str) -> bool:
        """Whether every part of its chain is there; if not, the candidate says so from now on."""
        try:
            for link in self.chains[label].links:
                require_complete(self._services, link)
        except BackupIncomplete as error:
            self._known = [
                replace(item, chain_fault=error.fact) if item.label == label else item
                for item in self._known
            ]
            return False
        return True

    def _read(self, stored: Iterator[StoredBackup]) -> Iterator[ParentCandidate]:
        for backup in stored:
            try:
                chain = follow_chain(backup, self._document)
            except PgkeepError as error:
                if not is_unbelievable(error):
                    raise
                yield replace(_candidate(backup), chain_fault=error.fact)
                continue
            self.chains[backup.document.label] = chain
            yield replace(
                _candidate(backup),
                suspect=any(link.document.suspect for link in chain.links),
                verified=self._chain_verified(chain),
            )

    def _document(self, ref: BackupRef) -> StoredBackup:
        if ref not in self._documents:
            self._documents[ref] = read_backup(self._services.store, ref, self._services.pinned)
        return self._documents[ref]

    def _chain_verified(self, chain: StoredChain) -> bool | None:
        """Every link's newest verification passed; one failed; or neither is known."""
        found = [self._link_verified(link) for link in chain.links]
        if False in found:
            return False
        return True if all(found) else None

    def _link_verified(self, link: StoredBackup) -> bool | None:
        label = link.document.label
        if label not in self._verified:
            report = newest_verification(self._services.store, link, self._services.pinned)
            self._verified[label] = None if report is None else report.passed
        return self._verified[label]


def _candidate(backup: StoredBackup) -> ParentCandidate:
    document = backup.document
    return ParentCandidate(
        label=document.label,
        depth=document.depth,
        timeline=document.timeline,
        start_lsn=document.start_lsn,
        system_identifier=document.system_identifier,
        major=document.postgres.major,
        block_size=document.postgres.block_size,
        data_checksums=document.postgres.data_checksums,
    )
