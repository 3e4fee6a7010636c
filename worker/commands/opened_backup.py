"""A committed backup with its keys: authenticated, its parts all there, ready to be read."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from shared.domain.backup_index import BackupIndex
from shared.errors import ChainBroken, Corrupt
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import StoredBackup, read_key_record
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.documents import SealedObject, Volume
from shared.repository.header_verification import HeaderVerification, verify_around
from shared.repository.object_aad import aad
from worker.commands.services import Services
from worker.keys.data_key import DataKey
from worker.pipeline.sealed_download import SealedBlob, open_at_once, open_blob, read_whole
from worker.pipeline.sealed_stream import SEGMENT_SIZE, STREAM_WINDOW
from worker.pipeline.tar_index import read_index

_Opener = Callable[[BlobStore, BlobName, bytes, bytes, int], SealedBlob]
# Header, last segment, seek table and frames of a blob are a request each: of one that is no larger
# than what a reader fetches at a time anyway, one request brings them all.
_SMALL: Final = STREAM_WINDOW * SEGMENT_SIZE


class BackupIncomplete(Corrupt):
    """A committed backup of which a part is gone or has another size."""

    code = "backup-incomplete"
    hint = "It cannot be restored; choose another one, and look at who can delete blobs."


@dataclass(frozen=True, slots=True)
class OpenedBackup:
    """Reading needs no further right than to the blobs: the keys are in memory."""

    stored: StoredBackup
    store: BlobStore
    keys: Mapping[str, DataKey]

    def volume(self, name: str) -> SealedBlob:
        volume = next(item for item in self.stored.document.volumes if item.name == name)
        return self._open(volume, self.stored.document.kid, open_blob)

    def sealed_object(self, name: str) -> SealedBlob:
        """`backup_manifest`, `index` or `facts`."""
        item = self.stored.document.object(name)
        small = item.stored_size <= _SMALL
        return self._open(item, item.kid, open_at_once if small else open_blob)

    def object_chunks(self, name: str, executor: Executor) -> Iterator[bytes]:
        return read_whole(self.sealed_object(name), executor, depth=2)

    def index(self, executor: Executor, wanted: Mapping[bytes, bytes] | None = None) -> BackupIndex:
        """`wanted` as `read_index` has it. Raises IndexInvalid, Corrupt."""
        index = read_index(self.object_chunks(layout.INDEX, executor), wanted)
        if index.label != self.stored.document.label:
            raise Corrupt(f"the index is that of backup {index.label}")
        return index

    def manifest(self, executor: Executor) -> bytes:
        """PostgreSQL's backup_manifest, byte for byte."""
        return b"".join(self.object_chunks(layout.BACKUP_MANIFEST, executor))

    def _open(self, part: Volume | SealedObject, kid: str, opened: _Opener) -> SealedBlob:
        document, ref, name = self.stored.document, self.stored.ref, part.name
        bound = aad(document.cluster_uuid, document.system_identifier, kid, ref.object_name(name))
        return opened(self.store, ref.blob(name), self.keys[kid].reveal(), bound, part.stored_size)


def open_backup(services: Services, stored: StoredBackup) -> OpenedBackup:
    """Unwrap the backup's keys. Raises NoUsableKey, UnwrapFailed, KeyCommitmentMismatch, …"""
    document = stored.document
    kids = {document.kid, *(item.kid for item in document.objects)}
    keys = {
        kid: services.key_ring.unwrap(
            read_key_record(services.store, stored.ref.cluster, kid, services.pinned)
        )
        for kid in sorted(kids)
    }
    return OpenedBackup(stored, services.store, keys)


def require_complete(services: Services, stored: StoredBackup) -> None:
    """Ask for everything that the document names. Raises BackupIncomplete with all gaps."""
    require_whole(verify_around(services.store, stored, services.pinned))


def require_whole(verification: HeaderVerification) -> None:
    """Raises BackupIncomplete with all that a header verification found missing.

    A broken hash chain says that an earlier document was changed; this backup restores all the
    same, so it is logged and the header verification reports it.
    """
    label = verification.backup.ref.label
    gaps = [item for item in verification.findings if item.code != ChainBroken.code]
    if gaps:
        facts = "; ".join(f"{item.object}: {item.detail}" for item in gaps)
        raise BackupIncomplete(f"backup {label} is not whole: {facts}")
    for finding in verification.findings:
        log_event("backup-chain-broken", label=label, object=finding.object)
