"""The watch over the second region: how far its copy is, and which backups are whole there."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Final

from functions.finding_news import tell
from functions.fleet_gauges import record_replication
from functions.wiring import Services
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingScope
from shared.domain.findings import REPOSITORY
from shared.domain.replication import (
    PendingBackup,
    ReplicationState,
    SeenBackup,
    failed_copies,
    judge_backups,
    judge_lag,
    not_yet_safe,
    now_safe,
    worth_a_look,
)
from shared.errors import PgkeepError, Unavailable
from shared.event_log import log_event
from shared.repository.backups import read_backup
from shared.repository.layout import BackupRef
from shared.repository.replicated_blobs import copy_of
from shared.repository.replication_status import ReplicationStatus
from shared.settings import Replication

_REPLICATION: Final = (FindingScope.REPLICATION,)
# A look at a backup is a few small requests; so many fit between two runs, and the oldest first.
_LOOKS_A_RUN: Final = 2_000
_LOOKS_AT_ONCE: Final = 4


def watch_replication(services: Services) -> None:
    """Ask the account once, then look at what is not geo-safe yet. Nothing without a secondary.

    Raises what the catalogue does, and Unavailable when the repository cannot be read: then
    findings about backups stay as they are.
    """
    if services.replication is None:
        return
    began = services.clock()
    reached = _settle_lag(services, services.replication, began)
    if reached is not None:
        services.catalogue.note_wal_copies(reached)
    pending = services.catalogue.pending_replication()
    seen = [] if reached is None else _looked_at(services, pending, reached)
    safe = now_safe(seen)
    if safe:
        services.catalogue.mark_geo_safe(safe, began)
    for one in safe:
        log_event("backup-geo-safe", cluster=one.cluster, label=one.label, by=reached)
    gone = {(one.cluster, one.label) for one in safe}
    waiting = [one for one in pending if (one.cluster, one.label) not in gone]
    _settle_backups(services, waiting, seen, began)


def _settle_lag(services: Services, status: ReplicationStatus, now: datetime) -> datetime | None:
    """The Last Sync Time that holds: what it once covered stays covered."""
    state, reached = _read(services, status, now)
    record_replication(services.telemetry, reached, now)
    allowed = min(
        (one.replication.behind_minutes for one in services.settings.cluster),
        default=services.settings.policy.replication.behind_minutes,
    )
    found = judge_lag(state, reached, timedelta(minutes=allowed), now)
    tell(
        services,
        REPOSITORY,
        services.catalogue.settle_findings(REPOSITORY, _REPLICATION, found, now),
    )
    log_event("replication-seen", state=state, last_sync_time=reached)
    return reached


def _read(
    services: Services, status: ReplicationStatus, now: datetime
) -> tuple[ReplicationState | None, datetime | None]:
    """No state when nobody answers; then the time is the last one that is remembered."""
    try:
        seen = status.read()
    except PgkeepError as error:
        level, fact = logging.ERROR, error.fact
        log_event("replication-unread", level=level, code=error.code, fact=fact)
        return None, services.catalogue.last_sync_time()
    return seen.state, services.catalogue.note_replication(seen, now)


def _looked_at(
    services: Services, pending: Iterable[PendingBackup], reached: datetime
) -> list[SeenBackup]:
    ready = worth_a_look(pending, reached)[:_LOOKS_A_RUN]
    with ThreadPoolExecutor(_LOOKS_AT_ONCE, "replication") as pool:
        return list(pool.map(partial(_look, services, reached), ready))


def _look(services: Services, reached: datetime, backup: PendingBackup) -> SeenBackup:
    """A backup that cannot be read is not safe; one that nobody can reach says nothing."""
    ref = BackupRef(backup.cluster, backup.label)
    try:
        stored = read_backup(services.store, ref, services.pinned)
        copy = copy_of(services.store, stored)
    except Unavailable:
        raise
    except PgkeepError as error:
        return SeenBackup(backup, (f"{ref.document}: {error.code}",))
    return SeenBackup(backup, not_yet_safe(copy, reached), failed_copies(copy))


def _settle_backups(
    services: Services,
    waiting: Sequence[PendingBackup],
    seen: Sequence[SeenBackup],
    now: datetime,
) -> None:
    """Of each cluster of which something waits, or is open."""
    terms = _terms(services)
    waiting_of, seen_of = _by_cluster(waiting), _seen_by_cluster(seen)
    known = {
        one.cluster
        for one in services.catalogue.findings()
        if one.finding.scope in _REPLICATION and one.cluster != REPOSITORY
    }
    for cluster in sorted(waiting_of.keys() | known):
        hours = terms.get(cluster, services.settings.policy.replication).geo_safe_hours
        found = judge_backups(
            waiting_of.get(cluster, ()), seen_of.get(cluster, ()), timedelta(hours=hours), now
        )
        if found or cluster in known:
            changes = services.catalogue.settle_findings(cluster, _REPLICATION, found, now)
            tell(services, cluster, changes)


def _terms(services: Services) -> Mapping[str, Replication]:
    return {one.name: one.replication for one in services.settings.cluster}


def _by_cluster(waiting: Iterable[PendingBackup]) -> dict[ClusterName, list[PendingBackup]]:
    ordered = sorted(waiting, key=lambda one: one.cluster)
    return {name: list(group) for name, group in groupby(ordered, lambda one: one.cluster)}


def _seen_by_cluster(seen: Iterable[SeenBackup]) -> dict[ClusterName, list[SeenBackup]]:
    ordered = sorted(seen, key=lambda one: one.backup.cluster)
    return {name: list(group) for name, group in groupby(ordered, lambda one: one.backup.cluster)}
