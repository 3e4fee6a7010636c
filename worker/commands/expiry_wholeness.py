"""Which backups have all that their documents name, by what was listed: no blob is asked for.

A verification says what a backup was when it was read. Since then a lifecycle rule or a hand may
have taken volumes or keys of it, and what nobody can restore must not stand in for another.
"""

from collections.abc import Iterable, Mapping

from shared.domain.cluster import ClusterName
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import StoredBackup, read_cluster
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.header_verification import Surroundings, judge
from shared.repository.layout import BackupRef
from worker.commands.services import Services


def whole_backups(
    services: Services,
    cluster: ClusterName,
    stored: Mapping[BackupRef, StoredBackup],
    blobs: Iterable[BlobInfo],
) -> frozenset[BackupRef]:
    """Lists the key records. Without an identity of the cluster nothing opens, so none is whole.

    Raises what the store does, and what an identity that cannot be believed raises.
    """
    identity = read_cluster(services.store, cluster, services.pinned)
    if identity is None:
        return frozenset()
    keys = services.store.list(layout.EVIDENCE, layout.key_records_prefix(cluster))
    sizes: dict[BlobName, int] = {info.name: info.size for info in (*blobs, *keys)}
    surroundings = Surroundings(sizes.get, stored.get)
    whole = set()
    for ref, backup in stored.items():
        findings = judge(backup, identity, surroundings).findings
        if not findings:
            whole.add(ref)
            continue
        first = findings[0]
        log_event(
            "backup-incomplete",
            label=ref.label,
            findings=len(findings),
            object=first.object,
            code=first.code,
        )
    return frozenset(whole)
