"""A backup's stored parts read whole, against the digests of its signed document."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from shared.errors import Corrupt, NotFound, PgkeepError
from shared.repository.backups import StoredBackup
from shared.repository.blob_store import BlobStore
from shared.repository.documents import Finding, SealedObject, Volume
from shared.repository.layout import BackupRef
from worker.commands.services import Progress
from worker.pipeline.in_order import map_in_order
from worker.pipeline.sealed_download import SealedBlob, read_whole
from worker.pipeline.sealed_stream import Buffer

_PIECE = 8 << 20  # one ranged GET of the ciphertext check
_AHEAD = 3  # pieces or windows that are fetched while another one is looked at
# A damaged backup has many symptoms; the first hundred tell enough and bound the report.
_MAX_FINDINGS = 100
_MAX_DETAIL = 2000  # characters


class DigestMismatch(Corrupt):
    """Stored bytes whose SHA-256 is not the signed document's."""

    code = "digest-mismatch"


@dataclass(slots=True)
class Tally:
    """What was read of one backup so far, and what was wrong with it."""

    progress: Progress
    total_bytes: int
    segments: int = 0
    stored_bytes: int = 0
    plain_bytes: int = 0
    files: int = 0
    findings: list[Finding] = field(default_factory=list)

    def note(self, where: str, error: PgkeepError) -> None:
        if len(self.findings) < _MAX_FINDINGS:
            detail = error.fact[:_MAX_DETAIL]
            self.findings.append(Finding(code=error.code, object=where, detail=detail))

    def read(self, stored: int, segments: int) -> None:
        self.stored_bytes += stored
        self.segments += segments
        self.progress.advance(self.stored_bytes, self.total_bytes)


def compare(what: str, found: str, expected: str) -> None:
    """Raises DigestMismatch."""
    if found != expected:
        raise DigestMismatch(f"{what} has digest {found} instead of {expected}")


def prove_ciphertext(
    store: BlobStore, backup: StoredBackup, tally: Tally, executor: Executor
) -> None:
    """Every stored byte, without a key."""
    for part in backup.document.parts:
        digest = hashlib.sha256()
        try:
            for piece in _stored_bytes(store, backup.ref, part, executor):
                digest.update(piece)
                tally.read(len(piece), 0)
            compare(part.name, digest.hexdigest(), part.sha256)
        except (Corrupt, NotFound) as error:
            tally.note(part.name, error)


def _stored_bytes(
    store: BlobStore, ref: BackupRef, part: Volume | SealedObject, executor: Executor
) -> Iterator[bytes]:
    read = partial(store.read_range, ref.blob(part.name))
    starts = range(0, part.stored_size, _PIECE)
    spans = ((start, min(_PIECE, part.stored_size - start)) for start in starts)
    return map_in_order(executor, lambda span: read(*span), spans, _AHEAD)


def read_part(
    blob: SealedBlob, part: Volume | SealedObject, tally: Tally, executor: Executor
) -> Iterator[bytes]:
    """The plaintext in order; afterwards both digests were compared with the document's.

    Raises DigestMismatch and what `read_whole` raises.
    """
    stored, plain = hashlib.sha256(), hashlib.sha256()

    def watch(piece: Buffer, segments: int) -> None:
        stored.update(piece)
        tally.read(len(piece), segments)

    for frame in read_whole(blob, executor, _AHEAD, watch):
        plain.update(frame)
        tally.plain_bytes += len(frame)
        yield frame
    compare(part.name, stored.hexdigest(), part.sha256)
    compare(f"the plaintext of {part.name}", plain.hexdigest(), part.plain_sha256)
