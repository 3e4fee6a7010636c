"""A repository of hand-made documents that is as old as a test wants, and a worker that expires it.

Day 0 is when the first backup was taken. Each day has one segment of WAL, whose number is the
day's plus `FIRST`; a backup of a day begins in its segment.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import UUID

from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segment_name
from shared.errors import BlobImmutable
from shared.jobs.file_lease import FileLeases
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobName, BlobStore
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import WalRange
from shared.repository.layout import BackupRef
from shared.repository.wal_metadata import WalMetadata
from shared.settings import ClusterSettings, DirectoryRepository, Settings
from shared.settings.policy import Retention
from tests.harness.signed_repository import KID, Committed, SignedRepository
from tests.harness.worker_services import Silent, WatchedStore
from worker import wiring
from worker.commands.expire import ExpireOutcome, ExpireRequest, expire
from worker.commands.services import Clocks, Services

CLUSTER = "demo"
NAME = ClusterName(CLUSTER)
SEGMENT = 16 << 20
FIRST = 2
DAY = timedelta(days=1)


class Killed(BaseException):
    """The process ends here: nobody may handle it."""


@dataclass
class FatalStore(WatchedStore):
    """Lets so many deletions through, then the process dies."""

    allowed: int = 1_000_000
    deleted: list[BlobName] = field(default_factory=list)

    def delete(self, name: BlobName) -> None:
        with self._lock:
            if len(self.deleted) >= self.allowed:
                raise Killed
            super().delete(name)
            self.deleted.append(name)


@dataclass
class WormStore(WatchedStore):
    """Time-based retention as Azure documents it: a blob cannot be deleted before its interval,
    counted from its creation, is over; nor ever while a legal hold (here: on a prefix) stands.
    """

    days: float = 0
    holds: tuple[str, ...] = ()
    clock: Any = None

    def delete(self, name: BlobName) -> None:
        until = self.head(name).modified + self.days * DAY
        if (self.days and self.clock() < until) or str(name).startswith(self.holds or ("-",)):
            raise BlobImmutable(f"{name} is kept by an immutability policy")
        super().delete(name)


@dataclass
class AgedRepository:
    """`now` is what the worker takes for the time; blobs are as old as the test's own clock says,
    so that a test about their age moves `now`.
    """

    repository: SignedRepository
    folder: Path
    days: int
    retention: Retention = field(default_factory=Retention)
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    made: list[Committed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.origin = self.now - self.days * DAY

    @property
    def store(self) -> BlobStore:
        return self.repository.store

    def copied(self, folder: Path) -> "AgedRepository":
        """Of one in a directory; by links, for metadata belongs to the inodes of its files."""
        copytree(self.folder, folder, copy_function=os.link)
        repository = replace(self.repository, store=DirectoryBlobStore(folder / "repository"))
        return replace(self, folder=folder, repository=repository, made=list(self.made))

    def full(self, day: float, *, verified: bool = True, **changes: Any) -> Committed:
        changes = {**self._positions(day), **changes}
        previous = self.made[-1] if self.made else None
        made = self.repository.commit(
            CLUSTER,
            at=self.origin + day * DAY,
            previous=previous,
            **{"counter": len(self.made) + 1, **changes},
        )
        self.made.append(made)
        if verified:
            self.repository.prove(made, f"check-{made.ref.label}")
        return made

    def incremental(self, day: float, parent: Committed, depth: int = 1) -> Committed:
        return self.full(day, parent=parent.link, depth=depth)

    def archive(self, days: Sequence[int], timeline: int = 1) -> list[BlobName]:
        """One segment for each of the days, with its commits."""
        return [self._segment(day, timeline) for day in days]

    def segment(self, day: int, timeline: int = 1) -> BlobName:
        name = segment_name(timeline, Lsn((FIRST + day) * SEGMENT), SEGMENT)
        return layout.wal_blob(NAME, WalFileName.parse(name))

    def _segment(self, day: int, timeline: int) -> BlobName:
        name, begun = self.segment(day, timeline), self.origin + day * DAY
        told = WalMetadata(KID, "0" * 64, SEGMENT, begun + DAY / 24, begun + 23 * DAY / 24)
        self.store.create(name, b"sealed", metadata=told.to_blob())
        return name

    def _positions(self, day: float) -> dict[str, Any]:
        start = Lsn(int((FIRST + day) * SEGMENT) + 0x28)
        stop = Lsn(start + 0x1000)
        return {
            "start_lsn": start,
            "stop_lsn": stop,
            "wal": (WalRange(timeline=1, start=start, end=stop),),
        }

    def services(self, **changes: Any) -> Services:
        """Of an identity that can delete and sign, and has no key that opens anything."""
        settings = Settings(
            repository=DirectoryRepository(type="directory", path=self.folder / "unused"),
            cluster=(self.cluster,),
        )
        clocks = Clocks(now=lambda: self.now, monotonic=lambda: 0.0)
        own: dict[str, Any] = {
            "store": self.store,
            "leases": FileLeases(self.folder / "leases", lambda: self.now),
            "pinned": self.repository.pinned,
            "signer": self.repository.signer,
            "clocks": clocks,
        }
        return replace(wiring.services(settings, Silent()), **{**own, **changes})

    @property
    def cluster(self) -> ClusterSettings:
        return ClusterSettings(name=CLUSTER, dsn="host=nowhere", retention=self.retention)

    def expire(
        self, number: int | None = None, *, dry_run: bool = False, **changes: Any
    ) -> ExpireOutcome:
        """The run of this number; `changes` replaces services, and `plan` goes into the request."""
        plan = changes.pop("plan", None)
        run = None if number is None else UUID(int=number, version=4)
        return expire(self.services(**changes), self.cluster, ExpireRequest(run, dry_run, plan))

    def labels(self) -> list[str]:
        """Of the backups that have a document."""
        found = (layout.parse_backup_blob(name) for name in self.blobs("full", "incremental"))
        return sorted(ref.label.text for ref, own in found if own == layout.BACKUP_DOCUMENT)

    def blobs(self, *containers: str) -> list[BlobName]:
        return [info.name for one in containers for info in self.store.list(one, f"{CLUSTER}/")]

    def infos(self, ref: BackupRef) -> list[BlobInfo]:
        return list(self.store.list(ref.kind.value, f"{CLUSTER}/{ref.label}/"))


def aged_directory(folder: Path, days: int, **more: Any) -> AgedRepository:
    """In a directory, with its cluster registered."""
    store = DirectoryBlobStore(folder / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    return aged(store, folder, days, **more)


def aged(store: BlobStore, folder: Path, days: int, **more: Any) -> AgedRepository:
    repository = SignedRepository(store)
    repository.register(CLUSTER)
    return AgedRepository(repository, folder, days, **more)
