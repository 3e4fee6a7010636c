"""A cluster's WAL as archive, writers and catalogue know it, and how news of it is told."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from functions.finding_news import tell
from functions.wiring import Services
from shared.catalogue.ports import Catalogue
from shared.domain.archived_log import segment_floor
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.finding_rules import FindingScope
from shared.domain.freshness import WalFreshness, WalSight, freshness
from shared.domain.wal_findings import SeenConflict, findings, troubles
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.jobs.wal_events import WalConflictSeen, WalGapSeen, WalProgress
from shared.repository.backups import BackupNotFound, find_backup, read_backup
from shared.repository.wal_listing import ArchiveSnapshot, refresh
from shared.settings import ClusterSettings


def watch(services: Services, cluster: ClusterSettings) -> None:
    """Look at the archive, judge, record; tell what is new. Raises what the catalogue does."""
    name = cluster_name(cluster.name)
    began = services.clock()
    snapshot = _refreshed(services, name)
    seen, conflicts = _judged(services, name, snapshot)
    services.catalogue.record_freshness(seen)
    found = findings(seen, conflicts, timedelta(seconds=cluster.wal.behind_seconds))
    scopes = [FindingScope.WAL]
    tell(services, name, services.catalogue.settle_findings(name, scopes, found, began))
    log_event(
        "wal-freshness",
        cluster=name,
        timeline=seen.timeline,
        through_lsn=seen.through_lsn and str(seen.through_lsn),
        protected_at=seen.protected_at,
        lag_seconds=seen.lag_seconds,
        unarchived_bytes=seen.unarchived_bytes,
        gaps=len(seen.gaps),
    )


def open_troubles(services: Services, cluster: ClusterName) -> None:
    """Gaps and conflicts become findings at once, by what was last known of the archive."""
    snapshot = services.catalogue.archive_snapshot(cluster) or ArchiveSnapshot()
    seen, conflicts = _judged(services, cluster, snapshot)
    found = troubles(seen, conflicts)
    tell(services, cluster, services.catalogue.open_findings(cluster, found, services.clock()))


def _refreshed(services: Services, cluster: ClusterName) -> ArchiveSnapshot:
    """While the archive cannot be read, what was last known of it: then the lag grows, as it should
    for what nobody can see.
    """
    known = services.catalogue.archive_snapshot(cluster)
    began = services.clock()
    try:
        size = _told_segment_size(services, cluster, known)
        snapshot = _unexpired(services, cluster, refresh(services.store, cluster, known, size))
    except PgkeepError as error:
        level, fact = logging.ERROR, error.fact
        log_event("archive-unread", level=level, cluster=cluster, code=error.code, fact=fact)
        return known or ArchiveSnapshot()
    services.catalogue.put_archive_snapshot(cluster, snapshot, began)
    return snapshot


def _unexpired(
    services: Services, cluster: ClusterName, snapshot: ArchiveSnapshot
) -> ArchiveSnapshot:
    """Without the stretches that `expire` left for single backups: between them is no gap."""
    size = snapshot.segment_size
    if size is None:
        return snapshot
    starts = services.catalogue.wal_starts(cluster)
    floors = {timeline: segment_floor(lsn, size) for timeline, lsn in starts.items()}
    return snapshot.model_copy(update={"ranges": snapshot.inventory.since(floors).ranges})


def _told_segment_size(
    services: Services, cluster: ClusterName, known: ArchiveSnapshot | None
) -> int | None:
    """By the newest backup. Large segments lie in the archive in pieces, which do not tell."""
    if known and known.segment_size:
        return None
    try:
        ref = find_backup(services.store, cluster, None)
    except BackupNotFound:
        return None
    return read_backup(services.store, ref, services.pinned).document.postgres.wal_segment_size


def _judged(
    services: Services, cluster: ClusterName, snapshot: ArchiveSnapshot
) -> tuple[WalFreshness, Sequence[SeenConflict]]:
    sight, conflicts = _sight(services.catalogue, cluster, snapshot)
    return freshness(cluster, sight, services.clock()), conflicts


def _sight(
    catalogue: Catalogue, cluster: ClusterName, snapshot: ArchiveSnapshot
) -> tuple[WalSight, Sequence[SeenConflict]]:
    events = catalogue.wal_events(cluster)
    sight = WalSight(
        inventory=snapshot.inventory,
        backup=catalogue.newest_base(cluster),
        reports=[event.report() for event in events if isinstance(event, WalProgress)],
        reported_gaps=[event.gap() for event in events if isinstance(event, WalGapSeen)],
        previous=catalogue.freshness(cluster),
    )
    return sight, [event.conflict() for event in events if isinstance(event, WalConflictSeen)]
