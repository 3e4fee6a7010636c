"""PostgreSQL servers and their WAL writers, as far as a control plane can tell them apart.

Between two looks at it a server writes one segment, whatever the time between them: what matters is
what is archived, in which order, and what is missing.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segment_name
from shared.errors import PgkeepError
from shared.jobs.wal_events import WalGapSeen, WalProgress
from shared.repository import layout
from shared.repository.blob_store import BlobStore
from shared.repository.wal_metadata import WalMetadata
from tests.harness.signed_repository import KID

SEGMENT = 16 << 20
_FIRST = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """Of timeline 1; commits from `begun` to `ended` are in it."""

    number: int
    begun: datetime
    ended: datetime

    @property
    def start(self) -> Lsn:
        return Lsn(self.number * SEGMENT)

    @property
    def end(self) -> Lsn:
        return Lsn((self.number + 1) * SEGMENT)


@dataclass
class Server:
    """`writer_down_until` and `down_until`: its WAL writer, and the server itself.

    `waiting` is what the writer has not archived yet; `lost` are segments that nobody has.
    `archived_at`: when everything was archived last.
    """

    name: ClusterName
    begun: datetime
    number: int = _FIRST
    waiting: list[Segment] = field(default_factory=list)
    lost: list[Segment] = field(default_factory=list)
    writer_down_until: datetime | None = None
    down_until: datetime | None = None
    archived_at: datetime | None = None

    @property
    def position(self) -> Lsn:
        """Where the segment begins that is being written."""
        return Lsn(self.number * SEGMENT)

    def is_up(self, now: datetime) -> bool:
        return self.down_until is None or now >= self.down_until

    def writer_is_up(self, now: datetime) -> bool:
        return self.writer_down_until is None or now >= self.writer_down_until

    def advance(self, now: datetime) -> None:
        """Complete the segment; a server that is down writes none."""
        if self.is_up(now) and now > self.begun:
            self.waiting.append(Segment(self.number, self.begun, now))
            self.number, self.begun = self.number + 1, now

    def archive(self, store: BlobStore, now: datetime) -> None:
        """Whatever is waiting, the oldest first; storage may be away."""
        if not (self.is_up(now) and self.writer_is_up(now)):
            return
        with suppress(PgkeepError):
            while self.waiting:
                _store(store, self.name, self.waiting[0])
                del self.waiting[0]
            self.archived_at = now

    def lose(self, now: datetime, tell: Callable[[WalGapSeen], object]) -> None:
        """The server drops what was waiting, as it does when a slot lags too far behind."""
        self.lost += self.waiting
        first, last, self.waiting = self.waiting[0], self.waiting[-1], []
        tell(
            WalGapSeen(
                cluster=self.name, at=now, writer="receive", host="host", timeline=1,
                from_lsn=first.start, to_lsn=last.end,
            )
        )  # fmt: skip

    def progress(self, now: datetime) -> WalProgress:
        return WalProgress(
            cluster=self.name,
            at=now,
            writer="receive",
            host="host",
            timeline=1,
            server_lsn=self.position,
            archived_lsn=self.waiting[0].start if self.waiting else self.position,
            unarchived_bytes=len(self.waiting) * SEGMENT,
        )


def _store(store: BlobStore, cluster: ClusterName, segment: Segment) -> None:
    name = WalFileName.parse(segment_name(1, segment.start, SEGMENT))
    told = WalMetadata(KID, "0" * 64, SEGMENT, segment.begun, segment.ended)
    store.create(layout.wal_blob(cluster, name), b"sealed", metadata=told.to_blob())
