"""The WAL archive as retention sees it: every file with the segment it belongs to.

Timeline history files are sealed, and always stay. Where a private key is at hand they are read, so
that what can be restored is told in full; the plan itself never depends on them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.recovery_path import BackupCandidate, Reach, Ways
from shared.domain.timeline import TimelineHistory
from shared.domain.wal_branches import WalBranch
from shared.domain.wal_findings import GAP_SETTLES
from shared.domain.wal_inventory import ArchivedWal, ListedArchive
from shared.domain.wal_retention import WalNeeds
from shared.domain.wal_segment import WalFileKind, WalFileName, WalPiece, segment_start
from shared.errors import Corrupt, Denied, InvalidInput, NotFound
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import StoredBackup, read_cluster
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.wal_listing import archived_wal
from worker.commands.services import Services
from worker.commands.wal_reader import WalReader

# Only until a backup tells: nothing is judged, and nothing deleted, without one.
_USUAL_SEGMENT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class WalFile:
    """One blob of the archive. [start, end) is its whole segment; `log` is None when recovery
    never reads it, as PostgreSQL's own `.partial` and `.backup`.
    """

    info: BlobInfo
    timeline: int
    start: Lsn
    end: Lsn
    log: ArchivedWal | None

    def is_needed(self, needs: WalNeeds) -> bool:
        return needs.needs(self.timeline, self.start, self.end)


@dataclass(frozen=True, slots=True)
class WalReach:
    """How far a backup's own timeline goes on; `end` None and not continuous: not at all."""

    continuous: bool
    end: Lsn | None = None


@dataclass(frozen=True, slots=True)
class SurveyedArchive:
    segment_size: int
    files: tuple[WalFile, ...]
    histories: dict[int, TimelineHistory]
    foreign: tuple[BlobName, ...]
    at: datetime

    def listed(self, needs: WalNeeds | None = None) -> ListedArchive:
        """What a recovery can be planned with, as it is or with no more than what is needed."""
        kept = (file for file in self.files if needs is None or file.is_needed(needs))
        logs = tuple(file.log for file in kept if file.log is not None)
        return ListedArchive(self.segment_size, logs, self.histories)

    @property
    def branches(self) -> tuple[WalBranch, ...]:
        """Each timeline with any log that recovery reads."""
        logs: dict[int, list[WalFile]] = {}
        for file in self.files:
            if file.log is not None:
                logs.setdefault(file.timeline, []).append(file)
        return tuple(
            WalBranch(
                timeline,
                min(file.start for file in files),
                max(file.info.modified for file in files),
            )
            for timeline, files in logs.items()
        )

    def unneeded(self, needs: WalNeeds) -> Sequence[WalFile]:
        """By timeline and position, the oldest first."""
        return [file for file in self.files if not file.is_needed(needs)]

    def reach(self, ways: Ways, backup: BackupCandidate) -> WalReach:
        """Whether the backup's WAL reaches without a gap to the newest of its timeline, or how far.

        Segments in flight become durable in any order: a hole before what was stored just now is
        none yet.
        """
        reach = ways.reach(backup, backup.timeline)
        if not isinstance(reach, Reach):
            return WalReach(continuous=False)
        ends = reach.gap is not None and any(
            file.timeline == backup.timeline
            and file.log is not None
            and file.log.end > reach.end
            and self.at - file.info.modified > GAP_SETTLES
            for file in self.files
        )
        return WalReach(continuous=not ends, end=reach.end if ends else None)


def survey_archive(
    services: Services, cluster: ClusterName, backups: Sequence[StoredBackup], at: datetime
) -> SurveyedArchive:
    """Lists the cluster's whole archive once."""
    newest = max(backups, key=lambda backup: backup.ref.label, default=None)
    size = newest.document.postgres.wal_segment_size if newest else _USUAL_SEGMENT
    files: list[WalFile] = []
    branches: list[int] = []
    foreign: list[BlobName] = []
    for info in services.store.list(layout.WAL, layout.wal_prefix(cluster)):
        try:
            found = _file(info, size)
        except InvalidInput as error:
            log_event("blob-foreign", name=str(info.name), code=error.code)
            foreign.append(info.name)
            continue
        if isinstance(found, WalFile):
            files.append(found)
        else:
            branches.append(found)
    files.sort(key=lambda file: (file.timeline, file.start, file.info.name))
    histories = dict(_histories(services, cluster, branches))
    return SurveyedArchive(size, tuple(files), histories, tuple(foreign), at)


def _file(info: BlobInfo, segment_size: int) -> WalFile | int:
    """A file of the log, or the timeline of a history file. Raises InvalidInput."""
    _, item = layout.parse_wal(info.name)
    if isinstance(item, WalFileName) and item.kind is WalFileKind.HISTORY:
        return item.timeline
    start = segment_start(item.name if isinstance(item, WalPiece) else item, segment_size)
    log = archived_wal(info, segment_size)
    return WalFile(info, item.timeline, start, start + segment_size, log)


def _histories(
    services: Services, cluster: ClusterName, timelines: Sequence[int]
) -> Iterator[tuple[int, TimelineHistory]]:
    """Those that can be opened here; the identity that deletes has no key for any."""
    identity = read_cluster(services.store, cluster, services.pinned)
    if identity is None:
        return
    reader = WalReader(services, identity)
    for number in timelines:
        try:
            content = reader.read(WalFileName(WalFileKind.HISTORY, number))
            yield number, TimelineHistory.parse(number, content)
        except (Corrupt, Denied, NotFound) as error:
            log_event("history-unreadable", timeline=number, code=error.code)
