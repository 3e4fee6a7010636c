"""Reading WAL back, one file at a time, and telling apart what is absent from what went wrong.

`WalAbsent` is raised for a positive answer of storage alone: PostgreSQL takes it for the end of
the WAL and opens the database (trap 31). Everything else is another error.
"""

import hashlib
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.wal_segment import WalFileKind, WalFileName, WalObject, WalPiece
from shared.errors import (
    BlobNotFound,
    Corrupt,
    Denied,
    InvalidInput,
    NotFound,
    PgkeepError,
    Refused,
    SegmentCorrupt,
    Unavailable,
)
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import read_key_record
from shared.repository.blob_store import BlobInfo
from shared.repository.documents import ClusterDocument
from shared.repository.key_record import KeyPurpose, KeyRecord
from shared.repository.key_records import key_ids
from shared.repository.object_aad import aad
from shared.repository.wal_metadata import WalMetadata
from worker.commands.services import Services
from worker.commands.wal_archive import plain_max
from worker.keys.data_key import DataKey
from worker.pipeline.sealed_memory import opener_of, unseal
from worker.pipeline.sealed_stream import SegmentOpener
from worker.postgres.wal_page import read_head

# What does not compress grows a little: frames, seek table and tags, by less than one percent.
_GROWTH_MAX: Final = 1.02


class WalAbsent(NotFound):
    """A file that the archive does not have, says storage."""

    code = "wal-absent"
    hint = "`pgkeep show` tells how far the archive reaches; `pgkeep wal receive` keeps it growing."


class WalVanished(Unavailable):
    """A blob that was there a moment ago: deleted meanwhile, or storage contradicts itself."""

    code = "wal-vanished"
    hint = "Try again; if it stays, look at who deletes from the container `wal`."


class WalUnreadable(Corrupt):
    """A WAL file whose stored parts do not make what was archived."""

    code = "wal-unreadable"
    hint = "Recover to a target before it, and look at who can write to the repository."


@dataclass(frozen=True, slots=True)
class ReadSegment:
    """A segment in its full size; when it is not complete, its end is zeros."""

    content: bytes
    complete: bool


class WalReader:
    """Reads one cluster's archive. Safe to use from several threads."""

    def __init__(self, services: Services, cluster: ClusterDocument) -> None:
        self._services = services
        self._store = services.store
        self._document = cluster
        self._cluster = ClusterName(cluster.cluster)
        self._keys: dict[str, DataKey] = {}
        self._foreign: set[str] = set()
        self._lock = threading.Lock()

    def read(self, item: WalObject) -> bytes:
        """One file or piece; of a segment, whatever `read_segment` makes of it.

        Raises WalAbsent, WalVanished, WalUnreadable, SegmentCorrupt, FrameCorrupt, what the store
        raises and what the key ring raises.
        """
        if isinstance(item, WalFileName) and item.kind is WalFileKind.SEGMENT:
            return self.read_segment(item).content
        try:
            info = self._store.head(layout.wal_blob(self._cluster, item))
        except BlobNotFound:
            raise self._absence_of(item) from None
        return self._read(item, info)

    def read_segment(self, name: WalFileName) -> ReadSegment:
        """The whole segment, or what pieces there are of it. Raises as `read`."""
        try:
            info = self._store.head(layout.wal_blob(self._cluster, name))
        except BlobNotFound:
            return self._assembled(name)
        return ReadSegment(self._read(name, info), complete=True)

    def _absence_of(self, item: WalObject) -> PgkeepError:
        """Ask storage a second time, in another way: a stray 404 must not end a recovery."""
        if any(found == item for found, _ in self._listed(item)):
            return WalVanished(f"{item} is listed, but was not found")
        return WalAbsent(f"the archive of {self._cluster} has no {item}")

    def _listed(self, item: WalObject) -> Iterator[tuple[WalObject, BlobInfo]]:
        """What lies in the archive under names that begin with this one's."""
        prefix = layout.wal_blob(self._cluster, item).path
        for info in self._store.list(layout.WAL, prefix):
            try:
                _, found = layout.parse_wal(info.name)
            except InvalidInput as error:
                log_event("blob-foreign", name=str(info.name), code=error.code)
                continue
            yield found, info

    def _assembled(self, name: WalFileName) -> ReadSegment:
        pieces: dict[WalPiece, BlobInfo] = {}
        for found, info in self._listed(name):
            if found == name:  # stored whole since we asked for it
                return ReadSegment(self._read(name, info), complete=True)
            if isinstance(found, WalPiece):
                pieces[found] = info
        if not pieces:
            raise WalAbsent(f"the archive of {self._cluster} has no {name}")
        cover = cover_of(list(pieces))
        if not cover:
            raise WalUnreadable(f"no piece of {name} holds its beginning")
        with ThreadPoolExecutor(self._services.settings.worker.transfer_threads) as threads:
            contents = threads.map(lambda piece: self._read(piece, pieces[piece]), cover)
            return _joined(name, list(zip(cover, contents, strict=True)))

    def _read(self, item: WalObject, info: BlobInfo) -> bytes:
        """What does not open is read once more: it may have been hurt on the way (R02)."""
        try:
            return self._read_once(item, info)
        except Corrupt as error:
            log_event(
                "wal-read-again",
                level=logging.WARNING,
                name=str(info.name),
                code=error.code,
                fact=error.fact,
            )
        try:
            return self._read_once(item, info)
        except Corrupt as error:
            fact = f"{info.name} was read twice, and both times: {error.fact}"
            raise type(error)(fact, hint=error.advice) from None

    def _read_once(self, item: WalObject, info: BlobInfo) -> bytes:
        try:
            limit = math.ceil(plain_max(item) * _GROWTH_MAX)
            stored = self._store.read(info.name, limit=limit)
        except BlobNotFound:
            raise WalVanished(f"{info.name} was there, and is gone") from None
        told = WalMetadata.from_blob(info.metadata)
        plain = unseal(stored, self._opener(item, stored, told), limit=plain_max(item))
        if told is not None and hashlib.sha256(plain).hexdigest() != told.sha256:
            raise WalUnreadable(f"{info.name} opens, but is not what its metadata says")
        return plain

    def _opener(self, item: WalObject, stored: bytes, told: WalMetadata | None) -> SegmentOpener:
        """Under the key that the metadata names, else under any of the cluster's WAL keys."""
        failures: list[PgkeepError] = []
        for kid in self._candidates(told):
            try:
                return self._open(item, stored, kid)
            except (Corrupt, Denied, Refused) as error:
                if isinstance(error, Denied) and told is not None and not failures:
                    raise  # the blob's own key is not for us: no other will open it
                failures.append(error)
        nobody = SegmentCorrupt(f"no WAL key of cluster {self._cluster} opens {item}")
        if told is not None:
            raise failures[0]
        # A key that could not be tried may have been the one.
        raise next((error for error in failures if not isinstance(error, Corrupt)), nobody)

    def _candidates(self, told: WalMetadata | None) -> Iterator[str]:
        """Names of keys, without repetition: the most likely first, no request before its time."""
        with self._lock:
            known = [*reversed(self._keys)]
            passed = {*known, *self._foreign}
        if told is not None:
            yield told.kid
            passed.add(told.kid)
        yield from (kid for kid in known if told is None or kid != told.kid)
        yield from (kid for kid in key_ids(self._store, self._cluster) if kid not in passed)

    def _open(self, item: WalObject, stored: bytes, kid: str) -> SegmentOpener:
        document, name = self._document, layout.wal_object_name(item)
        bound = aad(document.cluster_uuid, document.system_identifier, kid, name)
        return opener_of(stored, (self._data_key(kid).reveal(), bound), name)

    def _data_key(self, kid: str) -> DataKey:
        with self._lock:
            known = self._keys.get(kid)
        if known is not None:
            return known
        data_key = self._services.key_ring.unwrap(self._record(kid))
        with self._lock:
            self._keys[kid] = data_key
        return data_key

    def _record(self, kid: str) -> KeyRecord:
        try:
            record = read_key_record(self._store, self._cluster, kid, self._services.pinned)
        except BlobNotFound:
            raise WalUnreadable(f"data key {kid} has no record") from None
        if record.purpose is not KeyPurpose.WAL:
            with self._lock:
                self._foreign.add(kid)
            raise WalUnreadable(f"data key {kid} is for {record.purpose}, not for WAL")
        return record


def cover_of(pieces: Sequence[WalPiece]) -> list[WalPiece]:
    """The fewest pieces that hold all bytes from 0 on, up to the first hole."""
    cover: list[WalPiece] = []
    position = 0
    while True:
        reaching = [piece for piece in pieces if piece.start <= position < piece.stop]
        if not reaching:
            return cover
        cover.append(max(reaching, key=lambda piece: piece.stop))
        position = cover[-1].stop


def _joined(name: WalFileName, parts: Sequence[tuple[WalPiece, bytes]]) -> ReadSegment:
    """Of a cover's pieces; what two of them both hold must be the same."""
    joined: list[memoryview] = []
    position = 0
    before = memoryview(b"")
    for piece, content in parts:
        if len(content) != piece.stop - piece.start:
            raise WalUnreadable(f"{piece} holds {len(content)} bytes")
        view = memoryview(content)
        shared = position - piece.start
        if before[len(before) - shared :] != view[:shared]:
            raise WalUnreadable(f"pieces of {name} differ in what they hold before {position}")
        joined.append(view[shared:])
        position, before = piece.stop, view
    size = read_head(parts[0][1]).segment_size
    if position > size:
        raise WalUnreadable(f"pieces of {name} hold {position} bytes, a segment has {size}")
    return ReadSegment(b"".join((*joined, bytes(size - position))), complete=position == size)
