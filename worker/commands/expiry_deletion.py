"""Carrying out a retention plan: what is done in which order, and what the storage does not allow.

Per backup: tombstone, then `backup.json`, then its parts; children before their parents; the WAL
after all backups, the oldest first. Wherever a run dies, no half backup is visible, and the next
run completes what it finds.

A dry run walks the same way and only pretends to delete.
"""

from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from shared.domain.backup import BackupLabel
from shared.domain.kept_backup import KeptBackup
from shared.domain.retention import wal_needs
from shared.domain.wal_retention import WalNeeds
from shared.errors import BlobAlreadyExists, BlobImmutable, BlobNotFound
from shared.event_log import log_event
from shared.jobs.lease import Renewal
from shared.repository import layout
from shared.repository.blob_store import BlobInfo
from shared.repository.expiry_documents import NotYet, Tombstone
from shared.repository.layout import BackupRef
from shared.repository.signatures import Signer, sign_document
from worker.commands.expiry_survey import Survey
from worker.commands.services import Services
from worker.pipeline.in_order import map_in_order

# Deletions under way; the executor's threads set how many at once.
_IN_FLIGHT: Final = 64


class Remover(Protocol):
    """The two things that change the repository."""

    def bury(self, backup: KeptBackup, reasons: tuple[str, ...]) -> None:
        """Note that this run deletes the backup, so that its absence is no alarm."""
        ...

    def remove(self, info: BlobInfo) -> str | None:
        """None when it is gone; else why the storage keeps it."""
        ...


@dataclass(frozen=True, slots=True)
class Gone:
    """A backup whose document is gone; `left` are parts that the storage keeps."""

    backup: KeptBackup
    reasons: tuple[str, ...]
    bytes: int
    left: int


@dataclass(slots=True)
class Deletion:
    """What was deleted, or would be. `needs` is what the backups that stay need of the WAL."""

    needs: WalNeeds
    gone: list[Gone] = field(default_factory=list)
    not_yet: list[NotYet] = field(default_factory=list)
    wal_files: int = 0
    wal_bytes: int = 0
    freed_bytes: int = 0

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(one.backup.label for one in self.gone)


class Pretence:
    """Deletes nothing, and finds that nothing forbids it."""

    def bury(self, backup: KeptBackup, reasons: tuple[str, ...]) -> None:
        pass

    def remove(self, info: BlobInfo) -> str | None:
        del info
        return None


@dataclass(frozen=True, slots=True)
class RealRemover:
    """Each step asks first whether the cluster's lease still holds."""

    services: Services
    signer: Signer
    survey: Survey
    run: UUID
    lease: Renewal

    def bury(self, backup: KeptBackup, reasons: tuple[str, ...]) -> None:
        self.lease.check()
        ref = BackupRef(self.survey.cluster, BackupLabel(backup.label))
        stone = Tombstone(
            cluster=self.survey.cluster,
            label=backup.label,
            document_digest=backup.digest,
            run=self.run,
            created_at=self.survey.at,
            bytes=backup.stored_bytes,
            reasons=reasons,
        )
        with suppress(BlobAlreadyExists):  # of an earlier delivery of this run, at another time
            raw = sign_document(stone, self.signer)
            self.services.store.create(layout.tombstone(ref, str(self.run)), raw)

    def remove(self, info: BlobInfo) -> str | None:
        self.lease.check()
        try:
            self.services.store.delete(info.name)
        except BlobNotFound:  # an earlier attempt's reply was lost
            return None
        except BlobImmutable as error:
            return error.fact
        return None


@dataclass(frozen=True, slots=True)
class _Work:
    survey: Survey
    remover: Remover
    executor: Executor
    done: Deletion

    def remove(self, what: str, infos: Iterable[BlobInfo]) -> tuple[int, int]:
        """Bytes that are freed, and how many blobs the storage keeps."""
        kept: list[str] = []
        freed = 0
        known = list(infos)
        facts = map_in_order(self.executor, self.remover.remove, known, depth=_IN_FLIGHT)
        for info, fact in zip(known, facts, strict=True):
            freed += 0 if fact else info.size
            kept += [fact] if fact else []
        self.done.freed_bytes += freed
        if kept:
            self.done.not_yet.append(NotYet(object=what, blobs=len(kept), fact=kept[0]))
            log_event("expire-not-yet", object=what, blobs=len(kept), fact=kept[0])
        return freed, len(kept)


def carry_out(services: Services, survey: Survey, remover: Remover) -> Deletion:
    """Raises what the store raises, and LeaseLost; what is done by then stays done."""
    done = Deletion(survey.plan.wal)
    if survey.plan.floor is None:
        return done
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        work = _Work(survey, remover, executor, done)
        _delete_backups(work)
        _delete_remains(work)
        stay = [item for item in survey.backups if item.label not in done.labels]
        done.needs = wal_needs(stay, survey.policy, survey.at, survey.archive.branches)
        _delete_wal(work)
    return done


def _delete_backups(work: _Work) -> None:
    """A backup stays when a child of it has to: the storage may keep what the plan does not."""
    reasons = {verdict.backup.label: verdict.reasons for verdict in work.survey.plan.verdicts}
    needed: set[str] = set()
    for backup in work.survey.plan.delete:
        stays = backup.label in needed or not _delete_backup(work, backup, reasons[backup.label])
        if stays and backup.parent is not None:
            needed.add(backup.parent)


def _delete_backup(work: _Work, backup: KeptBackup, reasons: tuple[str, ...]) -> bool:
    """Whether its document is gone."""
    ref = BackupRef(work.survey.cluster, BackupLabel(backup.label))
    blobs = work.survey.blobs[ref]
    work.remover.bury(backup, reasons)
    document = [info for info in blobs if info.name == ref.document]
    freed, kept = work.remove(str(ref.document), document)
    if kept:
        return False
    more, left = work.remove(f"parts of {backup.label}", (b for b in blobs if b not in document))
    work.done.gone.append(Gone(backup, reasons, freed + more, left))
    return True


def _delete_remains(work: _Work) -> None:
    for one in work.survey.remains:
        if one.goes:
            work.remove(f"remains of {one.ref.label}", one.blobs)


def _delete_wal(work: _Work) -> None:
    done, files = work.done, work.survey.archive.unneeded(work.done.needs)
    freed, kept = work.remove("WAL", (file.info for file in files))
    done.wal_files, done.wal_bytes = len(files) - kept, freed
