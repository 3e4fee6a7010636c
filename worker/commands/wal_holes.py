"""Whether the archive holds WAL behind a segment that it lacks: a hole, and not the end.

PostgreSQL takes an absent segment for the end of the WAL. Where more of the same timeline follows,
that would silently lose what lies behind.
"""

from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.wal_segment import WalFileKind, WalFileName, WalPiece
from shared.errors import InvalidInput
from shared.repository import layout
from shared.repository.blob_store import BlobStore

_FEW: Final = 16  # the first segment answers the question


def is_before_more(store: BlobStore, cluster: ClusterName, name: WalFileName) -> bool:
    """Whether a segment, or a piece of one, lies behind `name`. Raises what the store raises."""
    prefix = layout.wal_prefix(cluster, name.timeline)
    behind = f"{prefix}{name}/"  # sorts after the name and all that begins with `<name>.`
    for blob in store.list(layout.WAL, prefix, start=behind, page=_FEW):
        try:
            _, item = layout.parse_wal(blob.name)
        except InvalidInput:
            continue  # junk is no WAL
        if isinstance(item, WalPiece) or item.kind is WalFileKind.SEGMENT:
            return True
    return False
