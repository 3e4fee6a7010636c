"""`pgkeep verify`: read a backup back and prove what can be proved without a server.

Deep: every stored byte, segment and frame, every file against PostgreSQL's manifest, the WAL from
start to stop. Without a key: every stored byte against the signed document. The result is a signed
report in the evidence container; the catalogue only repeats it.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from shared.domain.backup_index import BackupIndex
from shared.domain.wal_segment import segments_between
from shared.errors import Corrupt, NotFound, PgkeepError
from shared.repository import layout
from shared.repository.backups import StoredBackup, read_backup
from shared.repository.documents import Finding, SealedObject, VerificationReport, Volume
from shared.repository.layout import BackupRef
from worker.commands.file_proof import ArchiveProof, FileProof
from worker.commands.opened_backup import OpenedBackup, open_backup
from worker.commands.services import Progress, Services, Stopwatch
from worker.commands.signed_reports import known_report, store_report
from worker.pipeline.in_order import map_in_order
from worker.pipeline.sealed_download import SealedBlob, read_whole
from worker.postgres.backup_manifest import parse as parse_manifest

_PIECE = 8 << 20  # one ranged GET of the ciphertext check
# A damaged backup has many symptoms; the first hundred tell enough and bound the report.
_MAX_FINDINGS = 100


class DigestMismatch(Corrupt):
    """Stored bytes whose SHA-256 is not the signed document's."""

    code = "digest-mismatch"


class WalMissing(Corrupt):
    """WAL between a backup's start and stop is not in the repository."""

    code = "wal-missing"
    hint = "The backup cannot reach consistency; take a new one."


@dataclass(slots=True)
class Tally:
    """What was read so far, and what was wrong with it."""

    progress: Progress
    total_bytes: int
    segments: int = 0
    stored_bytes: int = 0
    plain_bytes: int = 0
    files: int = 0
    findings: list[Finding] = field(default_factory=list)

    def note(self, where: str, error: PgkeepError) -> None:
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(code=error.code, object=where, detail=error.fact))

    def read(self, stored: int, segments: int) -> None:
        self.stored_bytes += stored
        self.segments += segments
        self.progress.advance(self.stored_bytes, self.total_bytes)


def verify(
    services: Services,
    ref: BackupRef,
    *,
    deep: bool = True,
    report_id: str | None = None,
    expected_digest: str | None = None,
) -> VerificationReport:
    """Read the whole backup and store a signed report. Idempotent per `report_id`.

    With `expected_digest`, that of the document when the job was asked for, another document is
    refused: DigestMismatch.

    Damage becomes findings in the report, not an exception. Raises when nothing can be said:
    no such backup, no key, storage away.
    """
    if report_id is not None:
        name = layout.verification_report(ref.cluster, report_id)
        known = known_report(services, name, VerificationReport)
        if known is not None:
            return known
    watch = Stopwatch(services.clocks.monotonic)
    stored = read_backup(services.store, ref, services.pinned)
    if expected_digest is not None:
        _compare(str(ref.document), stored.digest, expected_digest)
    tally = Tally(services.progress, stored.document.stored_size)
    services.progress.phase("verify")
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        if deep:
            _verify_deep(open_backup(services, stored), tally, executor)
        else:
            _verify_ciphertext(services, stored, tally, executor)
    report = _report(services, stored, tally, watch, report_id=report_id, deep=deep)
    if services.signer is None:
        return report
    return store_report(services, layout.verification_report(ref.cluster, report.id), report)


def _verify_ciphertext(
    services: Services, stored: StoredBackup, tally: Tally, executor: Executor
) -> None:
    for part in stored.document.parts:
        digest = hashlib.sha256()
        try:
            for piece in _stored_bytes(services, stored.ref, part, executor):
                digest.update(piece)
                tally.read(len(piece), 0)
            _compare(part.name, digest.hexdigest(), part.sha256)
        except (Corrupt, NotFound) as error:
            tally.note(part.name, error)


def _stored_bytes(
    services: Services, ref: BackupRef, part: Volume | SealedObject, executor: Executor
) -> Iterator[bytes]:
    read = partial(services.store.read_range, ref.blob(part.name))
    starts = range(0, part.stored_size, _PIECE)
    spans = ((start, min(_PIECE, part.stored_size - start)) for start in starts)
    return map_in_order(executor, lambda span: read(*span), spans, depth=3)


def _verify_deep(backup: OpenedBackup, tally: Tally, executor: Executor) -> None:
    document = backup.stored.document
    for item in document.objects:
        try:
            blob = backup.sealed_object(item.name)
            for _ in _read_part(blob, item, tally, executor):
                pass
        except (Corrupt, NotFound) as error:
            tally.note(item.name, error)
    try:
        manifest = parse_manifest(backup.manifest(executor))
        _check_wal(backup, backup.index(executor))
    except (Corrupt, NotFound) as error:
        tally.note(layout.BACKUP_MANIFEST, error)
        return
    files = FileProof(manifest, tally.note)
    for archive in sorted({volume.archive for volume in document.volumes}):
        _verify_archive(backup, ArchiveProof(archive, files), archive, tally, executor)
    files.finish()
    tally.files = files.files


def _verify_archive(
    backup: OpenedBackup, proof: ArchiveProof, archive: str, tally: Tally, executor: Executor
) -> None:
    volumes = [item for item in backup.stored.document.volumes if item.archive == archive]
    try:
        for volume in sorted(volumes, key=lambda item: item.number):
            for frame in _read_part(backup.volume(volume.name), volume, tally, executor):
                proof.feed(frame)
        proof.finish()
    except (Corrupt, NotFound) as error:
        tally.note(f"archive {archive}", error)


def _read_part(
    blob: SealedBlob, part: Volume | SealedObject, tally: Tally, executor: Executor
) -> Iterator[bytes]:
    """The plaintext; afterwards both digests were compared with the document's."""
    stored, plain = hashlib.sha256(), hashlib.sha256()

    def watch(piece: bytes, segments: int) -> None:
        stored.update(piece)
        tally.read(len(piece), segments)

    for frame in read_whole(blob, executor, 3, watch):
        plain.update(frame)
        tally.plain_bytes += len(frame)
        yield frame
    _compare(part.name, stored.hexdigest(), part.sha256)
    _compare(f"the plaintext of {part.name}", plain.hexdigest(), part.plain_sha256)


def _compare(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise DigestMismatch(f"{what} has digest {found} instead of {expected}")


def _check_wal(backup: OpenedBackup, index: BackupIndex) -> None:
    """A backup that carries its WAL holds every segment from start to stop."""
    document = backup.stored.document
    if not document.wal_included:
        return
    size = document.postgres.wal_segment_size
    for needed in document.wal:
        for name in segments_between(needed.timeline, needed.start, needed.end, size):
            member = index.member(b"pg_wal/" + str(name).encode())
            if member is None or member.size != size:
                raise WalMissing(f"WAL segment {name} is not in backup {document.label}")


def _report(
    services: Services,
    stored: StoredBackup,
    tally: Tally,
    watch: Stopwatch,
    *,
    report_id: str | None,
    deep: bool,
) -> VerificationReport:
    return VerificationReport(
        id=report_id or str(uuid4()),
        cluster=stored.document.cluster,
        label=stored.document.label,
        document_digest=stored.digest,
        deep=deep,
        passed=not tally.findings,
        created_at=services.clocks.now(),
        total_ms=watch.total_ms,
        segments=tally.segments,
        files=tally.files,
        stored_bytes=tally.stored_bytes,
        plain_bytes=tally.plain_bytes,
        findings=tuple(tally.findings),
    )
