"""What a cluster's repository holds, as retention weighs it: read without any private key.

Each container is listed once below the cluster's prefix. Documents, reports and tombstones are
authenticated; what cannot be believed neither counts nor goes.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import chain as joined
from typing import Final

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.kept_backup import KeptBackup, RetentionPolicy
from shared.domain.recovery_path import BackupCandidate, Ways
from shared.domain.retention import RetentionPlan, plan_retention
from shared.domain.retention_settling import in_force
from shared.domain.wal_retention import WalStretch
from shared.errors import InvalidInput, PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import BackupNotFound, StoredBackup, read_backup
from shared.repository.belief import is_unbelievable
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.chains import follow_chain
from shared.repository.known_backups import candidate
from shared.repository.layout import BackupRef
from shared.settings.policy import Retention
from worker.commands.expiry_archive import SurveyedArchive, WalReach, survey_archive
from worker.commands.expiry_policy import earlier_policies, policy_of
from worker.commands.expiry_remains import BackupRemains, judge_remains
from worker.commands.expiry_wholeness import whole_backups
from worker.commands.proof_state import ProofStates
from worker.commands.services import Services
from worker.pipeline.in_order import map_in_order

_READ_AHEAD: Final = 16


@dataclass(frozen=True, slots=True)
class Survey:
    """`blobs` holds every blob of every backup that has a document; `foreign` whatever is none of
    ours, which nobody touches. `candidates` are what a recovery could begin with. The plan goes by
    `policy`; `asked` is what the settings say.
    """

    cluster: ClusterName
    at: datetime
    plan: RetentionPlan
    asked: RetentionPolicy
    policy: RetentionPolicy
    backups: tuple[KeptBackup, ...]
    candidates: tuple[BackupCandidate, ...]
    blobs: dict[BackupRef, list[BlobInfo]]
    archive: SurveyedArchive
    remains: tuple[BackupRemains, ...]
    foreign: tuple[BlobName, ...]


def survey(services: Services, cluster: ClusterName, retention: Retention, at: datetime) -> Survey:
    """Raises what the store does when the repository cannot be read in full."""
    blobs, foreign = _listed(services, cluster)
    documents = {ref for ref, infos in blobs.items() if _document_of(ref, infos)}
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        stored, unreadable = _read(services, sorted(documents), executor)
        archive = survey_archive(services, cluster, list(stored.values()), at)
        states = ProofStates.read(services, cluster, list(stored.values()), executor)
    whole = whole_backups(services, cluster, stored, joined.from_iterable(blobs.values()))
    candidates = tuple(_candidates(stored, whole))
    reaches = _reaches(archive, candidates)
    backups = tuple(
        _kept(item, states, reaches(item), whole=ref in whole) for ref, item in stored.items()
    )
    asked = policy_of(retention)
    earlier = earlier_policies(services, cluster, at, retention.settle_days)
    policy = in_force(asked, earlier, {item.label for item in backups})
    parts = {ref: infos for ref, infos in blobs.items() if ref not in documents}
    return Survey(
        cluster=cluster,
        at=at,
        plan=plan_retention(backups, policy, at, unreadable=unreadable, branches=archive.branches),
        asked=asked,
        policy=policy,
        backups=backups,
        candidates=candidates,
        blobs={ref: blobs[ref] for ref in documents},
        archive=archive,
        remains=judge_remains(services, cluster, parts, retention.litter_days, at),
        foreign=(*foreign, *archive.foreign),
    )


def _listed(
    services: Services, cluster: ClusterName
) -> tuple[dict[BackupRef, list[BlobInfo]], list[BlobName]]:
    found: dict[BackupRef, list[BlobInfo]] = {}
    foreign = []
    for kind in BackupKind:
        for info in services.store.list(kind.value, layout.backups_prefix(cluster)):
            try:
                ref, _ = layout.parse_backup_blob(info.name)
            except InvalidInput as error:
                log_event("blob-foreign", name=str(info.name), code=error.code)
                foreign.append(info.name)
            else:
                found.setdefault(ref, []).append(info)
    return found, foreign


def _document_of(ref: BackupRef, infos: Sequence[BlobInfo]) -> bool:
    return any(info.name == ref.document for info in infos)


def _read(
    services: Services, refs: Sequence[BackupRef], executor: Executor
) -> tuple[dict[BackupRef, StoredBackup], list[str]]:
    """Every document that can be believed, and the labels of the others."""

    def read(ref: BackupRef) -> StoredBackup | str:
        try:
            return read_backup(services.store, ref, services.pinned)
        except PgkeepError as error:
            if not is_unbelievable(error):
                raise
            log_event("backup-document-refused", label=ref.label, code=error.code, fact=error.fact)
            return ref.label.text

    found = list(map_in_order(executor, read, refs, depth=_READ_AHEAD))
    stored = {item.ref: item for item in found if isinstance(item, StoredBackup)}
    return stored, [item for item in found if isinstance(item, str)]


def _candidates(
    stored: dict[BackupRef, StoredBackup], whole: Collection[BackupRef]
) -> list[BackupCandidate]:
    """Those of which every link is there, and all that it names."""
    found = []
    for backup in stored.values():
        try:
            chain = follow_chain(backup, lambda ref: _named(stored, ref))
        except PgkeepError as error:
            log_event("backup-chain-broken", label=backup.ref.label, object=error.fact)
            continue
        if all(link.ref in whole for link in chain.links):
            found.append(candidate(chain))
    return found


def _reaches(
    archive: SurveyedArchive, candidates: Sequence[BackupCandidate]
) -> Callable[[StoredBackup], WalReach]:
    by_label = {item.label: item for item in candidates}
    ways = Ways.of(archive.listed(), candidates)

    def ask(backup: StoredBackup) -> WalReach:
        found = by_label.get(backup.ref.label.text)
        return WalReach(continuous=False) if found is None else archive.reach(ways, found)

    return ask


def _named(stored: dict[BackupRef, StoredBackup], ref: BackupRef) -> StoredBackup:
    if ref not in stored:
        raise BackupNotFound(f"{ref.label} is not among the backups that can be believed")
    return stored[ref]


def _kept(backup: StoredBackup, states: ProofStates, reach: WalReach, *, whole: bool) -> KeptBackup:
    document, digest = backup.document, backup.digest
    return KeptBackup(
        label=document.label,
        kind=document.kind,
        at=backup.ref.label.time,
        timeline=document.timeline,
        start_lsn=document.start_lsn,
        digest=digest,
        parent=document.parent.label if document.parent else None,
        verified=states.verified(digest),
        proven=states.proven(digest),
        suspect=document.suspect,
        damaged=states.damaged(digest),
        whole=whole,
        continuous=reach.continuous,
        reaches=reach.end,
        stored_bytes=document.stored_size,
        finished_at=document.finished_at,
        wal=tuple(WalStretch(one.timeline, one.start, one.end) for one in document.wal),
    )
