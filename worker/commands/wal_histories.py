"""History files of timelines, from the server into the archive before any of their WAL."""

from shared.domain.timeline import TimelineHistory
from shared.domain.wal_segment import WalFileKind, WalFileName
from shared.errors import ProtocolViolation
from worker.commands.wal_archive import WalArchive
from worker.postgres.connection import ReplicationConnection
from worker.postgres.replication_slots import timeline_history


def store_histories(
    connection: ReplicationConnection, archive: WalArchive, timeline: int
) -> TimelineHistory:
    """The timeline's history, when it and those of its ancestors that the server has are stored.

    The first timeline has none. Raises WalConflict when the archive has another history of the same
    number: two servers were promoted (W08).
    """
    history = TimelineHistory(timeline)
    if timeline > 1:
        content = timeline_history(connection, timeline)
        if content is None:
            raise ProtocolViolation(f"the server has no history of timeline {timeline}")
        history = TimelineHistory.parse(timeline, content)
        archive.put(_file(timeline), content)
    for ancestor in history.ancestors:
        if ancestor.timeline > 1:
            content = timeline_history(connection, ancestor.timeline)
            if content is not None:
                archive.put(_file(ancestor.timeline), content)
    return history


def _file(timeline: int) -> WalFileName:
    return WalFileName(WalFileKind.HISTORY, timeline)
