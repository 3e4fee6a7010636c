"""Putting WAL into the repository: sealed, write-once, and the same again is no error.

A name that is taken is judged by the metadata beside the sealed bytes: a writer cannot open what
an earlier session sealed.
"""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from types import TracebackType
from typing import Final, Literal, Self

from shared.domain.cluster import ClusterName
from shared.domain.wal_segment import (
    SEGMENT_SIZE_MAX,
    WalFileKind,
    WalFileName,
    WalObject,
    WalPiece,
    segment_start,
)
from shared.errors import BlobAlreadyExists, Conflict, PgkeepError
from shared.jobs.wal_events import WalConflictSeen
from shared.repository import layout
from shared.repository.documents import ClusterDocument
from shared.repository.key_record import KeyPurpose
from shared.repository.wal_metadata import WalMetadata
from shared.telemetry.metric_names import WAL_SEGMENTS
from worker.commands.issued_key import IssuedKey, issue_key
from worker.commands.services import Services
from worker.commands.wal_reporter import WalReporter
from worker.pipeline.sealed_memory import seal
from worker.postgres.wal_page import Buffer, WalContents, look_into

# Larger segments are stored as pieces of this size, so that memory stays bounded (decision 0014).
PIECE_MAX: Final = 64 << 20
# A data key leaks at most so much WAL (20-artefact-format.md §2).
_KEY_LIFE_S: Final = 24 * 3600
_HOST_LENGTH: Final = 200

Writer = Literal["receive", "agent"]


class WalConflict(Conflict):
    """The archive has the name already, with another content."""

    code = "wal-conflict"
    hint = (
        "Two servers archive as one cluster: a promoted standby, or a clone. Find out which one "
        "is yours, and stop the other; the archive kept what it had."
    )


class Stored(StrEnum):
    NEW = "new"
    KNOWN = "known"  # the archive had it already, with the same content


class WalArchive:
    """One writer's session. Safe to use from several threads; close it, or use it in `with`."""

    def __init__(
        self, services: Services, cluster: ClusterDocument, reporter: WalReporter, writer: Writer
    ) -> None:
        self._services = services
        self._cluster = cluster
        self._reporter = reporter
        self._writer = writer
        self._key: IssuedKey | None = None
        self._key_issued_at = 0.0
        self._key_lock = threading.Lock()
        threads = services.settings.worker.compression_threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pgkeep-wal-compression")

    def put(self, item: WalObject, content: Buffer, contents: WalContents | None = None) -> Stored:
        """Durable when it returns. `contents` of a whole segment is found out when not given.

        Raises WalConflict, what the store raises, and WalSegmentSizeInvalid for a segment of
        another size than PostgreSQL writes.
        """
        outcome = "failed"
        try:
            stored = self._put(item, content, contents)
            outcome = stored.value
        except WalConflict:
            outcome = "conflict"
            raise
        finally:
            if _is_wal(item):
                cluster = self._cluster.cluster
                telemetry = self._services.telemetry
                telemetry.record(WAL_SEGMENTS, 1, cluster=cluster, outcome=outcome)
        return stored

    def _put(self, item: WalObject, content: Buffer, contents: WalContents | None) -> Stored:
        _check_size(item, content)
        key = self._current_key()
        described = self._pool.submit(_describe, key.kid, item, content, contents)
        sealed = seal(
            content,
            key.for_object(layout.wal_object_name(item)),
            random=self._services.random,
            compression=self._pool,
            level=self._services.settings.worker.compression_level,
        )
        metadata = described.result()
        name = layout.wal_blob(ClusterName(self._cluster.cluster), item)
        try:
            self._services.store.create(name, sealed, metadata=metadata.to_blob())
        except BlobAlreadyExists:
            return self._settle(item, metadata)
        return Stored.NEW

    def close(self) -> None:
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _current_key(self) -> IssuedKey:
        """The session's key, whose record is durable; a put that is under way keeps its own."""
        with self._key_lock:
            now = self._services.clocks.monotonic()
            if self._key is None or now - self._key_issued_at >= _KEY_LIFE_S:
                self._key = issue_key(self._services, self._cluster, KeyPurpose.WAL)
                self._key_issued_at = now
            return self._key

    def _settle(self, item: WalObject, ours: WalMetadata) -> Stored:
        """The name is taken: by the same content, or by another?"""
        name = layout.wal_blob(ClusterName(self._cluster.cluster), item)
        theirs = WalMetadata.from_blob(self._services.store.head(name).metadata)
        if theirs is not None and (theirs.sha256, theirs.size) == (ours.sha256, ours.size):
            return Stored.KNOWN
        stored = None if theirs is None else theirs.sha256
        self._reporter.send(
            WalConflictSeen(
                cluster=self._cluster.cluster,
                at=self._services.clocks.now(),
                writer=self._writer,
                host=self._services.host[:_HOST_LENGTH],
                name=str(item),
                stored_sha256=stored,
                offered_sha256=ours.sha256,
            )
        )
        raise WalConflict(
            f"{name} holds content with SHA-256 {stored or 'unknown'}, not {ours.sha256}"
        )


def plain_max(item: WalObject) -> int:
    """What one blob may hold. PostgreSQL's own `.partial` stays whole: its pieces have no name."""
    whole = isinstance(item, WalFileName) and item.kind is WalFileKind.PARTIAL
    return SEGMENT_SIZE_MAX if whole else PIECE_MAX


def _is_wal(item: WalObject) -> bool:
    """Whether it is a segment or a piece of one: WAL, and not word of it."""
    return isinstance(item, WalPiece) or item.kind is WalFileKind.SEGMENT


def _check_size(item: WalObject, content: Buffer) -> None:
    if len(content) > plain_max(item):
        raise PgkeepError(f"{item} has {len(content)} bytes and must be stored in pieces")
    if isinstance(item, WalPiece) and len(content) != item.stop - item.start:
        raise PgkeepError(f"{item} is given {len(content)} bytes")


def _describe(
    kid: str, item: WalObject, content: Buffer, contents: WalContents | None
) -> WalMetadata:
    if contents is None:
        contents = WalContents()
        if isinstance(item, WalFileName) and item.kind is WalFileKind.SEGMENT:
            contents = look_into(content, segment_start(item, len(content)))
    return WalMetadata(
        kid=kid,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        first_commit=contents.first_commit,
        last_commit=contents.last_commit,
        points=contents.points,
    )
