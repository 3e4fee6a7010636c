"""A repository of hand-made, truly signed documents; volumes have the right size, nothing more."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.domain.backup import BackupKind, BackupLabel, BackupSource
from shared.domain.cluster import ClusterName
from shared.domain.drill import DrillVerdict
from shared.domain.lsn import Lsn
from shared.repository import layout
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.documents import (
    BackupDocument,
    BackupLink,
    ClusterDocument,
    DrillReport,
    PostgresFacts,
    SealedObject,
    VerificationReport,
    Volume,
    WalRange,
)
from shared.repository.layout import BackupRef
from shared.repository.pinned_keys import PinnedKey
from shared.repository.proofs import remember
from shared.repository.reports import read_report
from shared.repository.signatures import PinnedKeys, document_digest, sign_document

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
SYSTEM = "7469021459732458133"
CLUSTER_UUID = str(UUID(int=7))
KID = "k" + "a" * 26
_SHA = "0" * 64
_POSTGRES = PostgresFacts(
    version_num=170010,
    version="17.10",
    block_size=8192,
    wal_segment_size=16 << 20,
    data_checksums=True,
)


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """A signer of its own; `key_id` is what readers pin."""

    key_id: str = "test-key"
    algorithm: Any = "Ed25519"
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)


@dataclass(frozen=True, slots=True)
class Committed:
    """A backup that was put into the repository."""

    ref: BackupRef
    digest: str

    @property
    def link(self) -> BackupLink:
        return BackupLink(label=self.ref.label.text, digest=self.digest)


@dataclass(frozen=True, slots=True)
class SignedRepository:
    store: BlobStore
    signer: Ed25519Signer = field(default_factory=Ed25519Signer)

    @property
    def pinned(self) -> PinnedKeys:
        return {self.signer.key_id: PinnedKey(self.signer.private.public_key())}

    def register(self, cluster: str = "demo", *, system: str = SYSTEM) -> None:
        name = ClusterName(cluster)
        document = ClusterDocument(
            cluster=cluster, cluster_uuid=CLUSTER_UUID, system_identifier=system, created_at=NOON
        )
        self.store.create(layout.cluster_document(name), sign_document(document, self.signer))
        self.store.create(layout.key_record(name, KID), b"{}")

    def commit(
        self,
        cluster: str = "demo",
        *,
        at: datetime = NOON,
        previous: Committed | None = None,
        omit: str | None = None,
        signer: Ed25519Signer | None = None,
        **changes: Any,
    ) -> Committed:
        """A backup with one volume; the blob called `omit` is left out.

        With `parent` among the changes, which name fields of the document, it is an incremental.
        """
        document = backup_document(cluster, at=at, previous=previous, **changes)
        ref = BackupRef(ClusterName(cluster), BackupLabel.parse(document.label))
        parts: tuple[Volume | SealedObject, ...] = (*document.volumes, *document.objects)
        for part in parts:
            if part.name != omit:
                self.store.create(ref.blob(part.name), bytes(part.stored_size))
        raw = sign_document(document, signer or self.signer)
        self.store.create(ref.document, raw)
        return Committed(ref, document_digest(raw))

    def verify(
        self, backup: Committed, report_id: str, *, passed: bool = True, **changes: Any
    ) -> BlobName:
        """A signed report of a deep verification; `changes` name its other fields."""
        fields: dict[str, Any] = {
            "id": report_id,
            "cluster": backup.ref.cluster,
            "label": backup.ref.label.text,
            "document_digest": backup.digest,
            "deep": True,
            "passed": passed,
            "created_at": NOON + timedelta(hours=1),
            "total_ms": 5,
            "segments": 2,
            "files": 3,
            "stored_bytes": 30,
            "plain_bytes": 60,
        }
        report = VerificationReport(**{**fields, **changes})
        name = layout.verification_report(backup.ref.cluster, report_id)
        self.store.create(name, sign_document(report, self.signer))
        return name

    def prove(self, backup: Committed, report_id: str, **changes: Any) -> None:
        """As `verify`, and whoever looks for the backup's verification finds it."""
        name = self.verify(backup, report_id, **changes)
        report = read_report(self.store, name, self.pinned).report
        assert isinstance(report, VerificationReport)
        remember(self.store, report)

    def drill(self, backup: Committed, report_id: str, verdict: DrillVerdict) -> BlobName:
        """A signed drill report."""
        report = drill_report(backup, report_id, verdict)
        name = layout.drill_report(backup.ref.cluster, report_id)
        self.store.create(name, sign_document(report, self.signer))
        return name


def backup_document(
    cluster: str,
    *,
    at: datetime = NOON,
    previous: Committed | None = None,
    **changes: Any,
) -> BackupDocument:
    kind = BackupKind.INCREMENTAL if changes.get("parent") else BackupKind.FULL
    label = BackupLabel.new(kind, at, lambda letters: letters[0])
    size: dict[str, Any] = {"sha256": _SHA, "plain_size": 40, "plain_sha256": _SHA}
    fields: dict[str, Any] = {
        "cluster": cluster,
        "cluster_uuid": CLUSTER_UUID,
        "system_identifier": SYSTEM,
        "label": label.text,
        "kind": kind,
        "depth": 1 if kind is BackupKind.INCREMENTAL else 0,
        "previous": previous.link if previous else None,
        "counter": 2 if previous else 1,
        "created_at": at + timedelta(minutes=2),
        "started_at": at,
        "finished_at": at + timedelta(minutes=1),
        "source": BackupSource.PRIMARY,
        "postgres": _POSTGRES,
        "timeline": 1,
        "start_lsn": Lsn.parse("0/2000028"),
        "stop_lsn": Lsn.parse("0/3000000"),
        "wal": (WalRange(timeline=1, start=Lsn.parse("0/2000028"), end=Lsn.parse("0/3000000")),),
        "wal_included": True,
        "kid": KID,
        "volumes": (
            Volume(
                name="base.pgdata.0000",
                archive="pgdata",
                number=0,
                stored_size=20,
                frames=1,
                **size,
            ),
        ),
        "objects": (
            SealedObject(name=layout.BACKUP_MANIFEST, kid=KID, stored_size=11, **size),
            SealedObject(name=layout.INDEX, kid=KID, stored_size=12, **size),
        ),
        "stream_ms": 1000,
        "total_ms": 2000,
        "tool": "pgkeep test",
    }
    return BackupDocument(**{**fields, **changes})


def drill_report(backup: Committed, report_id: str, verdict: DrillVerdict) -> DrillReport:
    return DrillReport(
        id=report_id,
        cluster=backup.ref.cluster,
        label=backup.ref.label.text,
        document_digest=backup.digest,
        created_at=NOON + timedelta(hours=2),
        verdict=verdict,
        reason="hand-made",
        phases_ms={"plan": 1},
        rto_ms=1500,
        restored_bytes=60,
        restored_files=3,
        postgres="17.10",
        checks=(),
        tool="pgkeep test",
    )
