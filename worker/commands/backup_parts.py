"""The sealed blobs of one backup on their way up, and what the document will say of each."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from shared.domain.backup import BackupLabel
from shared.repository import layout
from shared.repository.documents import SealedObject
from shared.repository.layout import BackupRef
from worker.commands.backup_keys import BackupKey
from worker.commands.services import Services
from worker.pipeline.sealed_upload import SealedUpload, StoredBlob, TransferPools, open_upload
from worker.pipeline.tar_index import head_line


def transfer_pools(services: Services) -> TransferPools:
    """As many threads as the settings allow; to be closed behind the last part."""
    worker = services.settings.worker
    return TransferPools(
        worker.compression_threads, worker.transfer_threads, worker.compression_level
    )


class PartUploads:
    """Opens uploads under the backup's own names; `stored` lists the committed small ones."""

    def __init__(self, services: Services, pools: TransferPools, ref: BackupRef) -> None:
        self._services = services
        self._pools = pools
        self._ref = ref
        self.stored: list[SealedObject] = []

    @property
    def label(self) -> BackupLabel:
        return self._ref.label

    def open(self, name: str, key: BackupKey) -> SealedUpload:
        return open_upload(
            self._services.store,
            self._ref.blob(name),
            key.for_object(name),
            self._pools,
            self._services.random,
        )

    def put(self, name: str, key: BackupKey, plain: bytes) -> None:
        """A small object in one go."""
        with self._sealing(name, key) as upload:
            upload.write(plain)

    @contextmanager
    def index(self, key: BackupKey, label: BackupLabel) -> Iterator[SealedUpload]:
        """The index, open while the stream runs; committed when it ended well."""
        with self._sealing(layout.INDEX, key) as upload:
            upload.write(head_line(str(label)))
            yield upload

    @contextmanager
    def _sealing(self, name: str, key: BackupKey) -> Iterator[SealedUpload]:
        """Committed and recorded when the block ended well, abandoned when it did not."""
        with ExitStack() as undo:
            upload = self.open(name, key)
            undo.callback(upload.abandon)
            yield upload
            self._record(name, key, upload.commit())
            undo.pop_all()

    def _record(self, name: str, key: BackupKey, blob: StoredBlob) -> None:
        self.stored.append(
            SealedObject(
                name=name,
                kid=key.kid,
                stored_size=blob.stored_size,
                sha256=blob.sha256,
                plain_size=blob.plain_size,
                plain_sha256=blob.plain_sha256,
            )
        )
