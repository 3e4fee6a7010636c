"""Parts without a document: litter of an attempt, rests of a deletion, or signs of a loss.

Which of them it is, evidence tells. A tombstone: `expire` deleted the document and did not get to
the end. A verification, but no tombstone: somebody else deleted it, and the parts may be all that
is left. Neither: an attempt that never committed, litter when it is old enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain.cluster import ClusterName
from shared.repository import layout
from shared.repository.blob_store import BlobInfo
from shared.repository.expiry_documents import RemainsVerdict
from shared.repository.layout import BackupRef
from shared.repository.tombstones import tombstone_of
from worker.commands.services import Services


@dataclass(frozen=True, slots=True)
class BackupRemains:
    """What lies below the label of a backup that does not exist."""

    ref: BackupRef
    blobs: tuple[BlobInfo, ...]
    verdict: RemainsVerdict

    @property
    def goes(self) -> bool:
        return self.verdict in {"litter", "expired"}

    @property
    def newest(self) -> datetime:
        return max(info.modified for info in self.blobs)

    @property
    def bytes(self) -> int:
        return sum(info.size for info in self.blobs)


def judge_remains(
    services: Services,
    cluster: ClusterName,
    parts: Mapping[BackupRef, Sequence[BlobInfo]],
    litter_days: float,
    at: datetime,
) -> tuple[BackupRemains, ...]:
    """By label. Whoever deletes holds the cluster's lease, so that none is of a running backup."""
    if not parts:
        return ()
    folders = services.store.list_folder(layout.EVIDENCE, layout.verified_prefix(cluster))
    verified = {name.rstrip("/") for name in folders}
    old = at - timedelta(days=litter_days)

    def verdict(ref: BackupRef, infos: Sequence[BlobInfo]) -> RemainsVerdict:
        if tombstone_of(services.store, ref, services.pinned) is not None:
            return "expired"
        if ref.label.text in verified:
            return "document-missing"
        return "litter" if all(info.modified <= old for info in infos) else "young"

    return tuple(
        BackupRemains(ref, tuple(infos), verdict(ref, infos))
        for ref, infos in sorted(parts.items())
    )
