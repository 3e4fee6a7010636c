"""Which data keys a cluster has, for readers of a blob that does not tell its own."""

from datetime import datetime

from shared.domain.cluster import ClusterName
from shared.errors import InvalidInput
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.blob_store import BlobStore


def key_ids(store: BlobStore, cluster: ClusterName) -> list[str]:
    """Names of the cluster's data keys, by their records' names alone; newest first.

    The newest is the one whose first record storage received last.
    """
    known: list[tuple[datetime, str]] = []
    for blob in store.list(layout.EVIDENCE, layout.key_records_prefix(cluster)):
        try:
            _, kid, rewrap = layout.parse_key_record(blob.name)
        except InvalidInput as error:
            log_event("blob-foreign", name=str(blob.name), code=error.code)
            continue
        if rewrap == 0:
            known.append((blob.modified, kid))
    return [kid for _, kid in sorted(known, reverse=True)]
