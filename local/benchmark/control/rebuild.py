"""The catalogue made again from signed documents, and a look at a whole fleet's promises.

The documents lie in a directory: what is measured is listing, believing and recording them. In
Azure each costs a small GET, of which sixteen run at once.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import sql

from functions.freshness_watch import watch_fleet
from local.benchmark.control.report import ControlRow, control_row
from local.benchmark.control.tick import CLUSTERS, fleet_settings, services_on
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared.catalogue.migrate import migrate
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.rebuild import rebuild
from shared.domain.backup import BackupKind, BackupLabel, BackupSource
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import (
    BackupDocument,
    BackupLink,
    ClusterDocument,
    Document,
    PostgresFacts,
    SealedObject,
    VerificationReport,
    Volume,
    WalRange,
)
from shared.repository.layout import BackupRef
from shared.repository.pinned_keys import Algorithm, PinnedKey
from shared.repository.signatures import PinnedKeys, document_digest, sign_document

_REBUILT_CLUSTERS = 100
_BACKUPS_OF_EACH = 40
# The last of each cluster is of the morning before the looks of `tick`.
_BEGAN = datetime(2026, 10, 15, 2, tzinfo=UTC)
_NOW = datetime(2026, 11, 23, 21, tzinfo=UTC)
_UUID, _SYSTEM, _KID = str(UUID(int=7)), "7469021459732458133", "k" + "a" * 26
_SHA, _START, _STOP = "0" * 64, Lsn.parse("0/2000028"), Lsn.parse("0/3000000")
_POSTGRES = PostgresFacts(
    version_num=170010, version="17.10", block_size=8192, wal_segment_size=16 << 20,
    data_checksums=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Signer:
    private: Ed25519PrivateKey
    key_id: str = "benchmark"
    algorithm: Algorithm = "Ed25519"

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)


@dataclass(frozen=True, slots=True)
class _Repository:
    """Nightly backups of some clusters, each verified; parts are a few bytes long."""

    root: Path
    signer: _Signer

    @property
    def pinned(self) -> PinnedKeys:
        return {self.signer.key_id: PinnedKey(self.signer.private.public_key())}

    def fill(self) -> None:
        for number in range(_REBUILT_CLUSTERS):
            cluster = ClusterName(f"c{number:05d}")
            identity = ClusterDocument(
                cluster=cluster, cluster_uuid=_UUID, system_identifier=_SYSTEM, created_at=_BEGAN
            )
            self._sign(layout.cluster_document(cluster), identity)
            self._write(layout.key_record(cluster, _KID), b"{}")
            previous = None
            for day in range(_BACKUPS_OF_EACH):
                previous = self._back_up(cluster, _BEGAN + timedelta(days=day), previous)

    def _back_up(self, cluster: str, at: datetime, previous: BackupLink | None) -> BackupLink:
        document = _document(cluster, at, previous)
        ref = BackupRef(ClusterName(cluster), BackupLabel.parse(document.label))
        for part in document.parts:
            self._write(ref.blob(part.name), bytes(part.stored_size))
        digest = self._sign(ref.document, document)
        report = _report(document, digest, at + timedelta(hours=1))
        self._sign(layout.verification_report(ref.cluster, report.id), report)
        return BackupLink(label=document.label, digest=digest)

    def _sign(self, name: BlobName, document: Document) -> str:
        raw = sign_document(document, self.signer)
        self._write(name, raw)
        return document_digest(raw)

    def _write(self, name: BlobName, data: bytes) -> None:
        """Not through the store, which would wait for the disk each time."""
        path = self.root / name.container / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def measure_rebuild(programs: Path, directory: Path, runs: int) -> Iterator[ControlRow]:
    """Each run into a catalogue of its own; then one look at ten thousand clusters."""
    root = directory / "documents"
    store = DirectoryBlobStore(root)
    for container in layout.CONTAINERS:
        store.create_container(container)
    repository = _Repository(root, _Signer(Ed25519PrivateKey.generate()))
    repository.fill()
    rebuilt, looks = [], []
    with PostgresServer.create(
        programs, directory / "rebuilt", ClusterOptions(fsync=False)
    ) as server:
        for number in range(runs):
            dsn = _catalogue(server, f"rebuilt_{number}")
            began = time.monotonic()
            outcome = rebuild(PostgresCatalogue(dsn), store, repository.pinned, _NOW)
            rebuilt.append(time.monotonic() - began)
            if outcome.refused:
                raise AssertionError(f"documents were refused: {outcome.refused[:3]}")
            looks.append(_look(dsn, directory))
    backups = _REBUILT_CLUSTERS * _BACKUPS_OF_EACH
    yield control_row("catalogue rebuilt, backups with a report each", backups, rebuilt,
                      "10,000 backups a minute")  # fmt: skip
    yield control_row("a look at the promises to a fleet", CLUSTERS, looks)


def _look(dsn: str, directory: Path) -> float:
    """The second one: the first only notes that there are such clusters."""
    services = services_on(fleet_settings(), dsn, directory)
    watch_fleet(services)
    began = time.monotonic()
    watch_fleet(services)
    return time.monotonic() - began


def _catalogue(server: PostgresServer, name: str) -> str:
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(server.dsn(name), _NOW)
    return server.dsn(name)


def _document(cluster: str, at: datetime, previous: BackupLink | None) -> BackupDocument:
    return BackupDocument(
        cluster=cluster,
        cluster_uuid=_UUID,
        system_identifier=_SYSTEM,
        label=BackupLabel.new(BackupKind.FULL, at, lambda letters: letters[0]).text,
        kind=BackupKind.FULL,
        previous=previous,
        counter=1,
        created_at=at + timedelta(minutes=2),
        started_at=at,
        finished_at=at + timedelta(minutes=1),
        source=BackupSource.PRIMARY,
        postgres=_POSTGRES,
        timeline=1,
        start_lsn=_START,
        stop_lsn=_STOP,
        wal=(WalRange(timeline=1, start=_START, end=_STOP),),
        wal_included=True,
        kid=_KID,
        volumes=tuple(_volume(number) for number in range(4)),
        objects=tuple(
            SealedObject(name=name, kid=_KID, stored_size=11, sha256=_SHA, plain_size=40,
                         plain_sha256=_SHA)
            for name in (layout.BACKUP_MANIFEST, layout.INDEX)
        ),
        stream_ms=1000,
        total_ms=2000,
        tool="pgkeep benchmark",
    )  # fmt: skip


def _volume(number: int) -> Volume:
    name = f"base.{layout.PGDATA_ARCHIVE}.{number:04d}"
    return Volume(
        name=name, archive=layout.PGDATA_ARCHIVE, number=number, stored_size=20, frames=1,
        sha256=_SHA, plain_size=40, plain_sha256=_SHA,
    )  # fmt: skip


def _report(document: BackupDocument, digest: str, at: datetime) -> VerificationReport:
    return VerificationReport(
        id=f"v-{document.label.lower()}", cluster=document.cluster, label=document.label,
        document_digest=digest, deep=True, passed=True, created_at=at, total_ms=5, segments=2,
        files=3, stored_bytes=30, plain_bytes=60,
    )  # fmt: skip
