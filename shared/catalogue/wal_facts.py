"""SQL of the port WalFacts; each function runs inside the session's transaction."""

from datetime import datetime
from typing import TypeVar, assert_never

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter, ValidationError

from shared.catalogue.postgres_session import Session
from shared.domain.cluster import ClusterName
from shared.domain.freshness import BackupBase, WalFreshness
from shared.domain.lsn import Lsn
from shared.jobs.wal_events import WalConflictSeen, WalEvent, WalGapSeen, WalProgress
from shared.repository.wal_listing import ArchiveSnapshot

_EVENT: TypeAdapter[WalEvent] = TypeAdapter(WalEvent)
_FRESHNESS = TypeAdapter(WalFreshness)
_SNAPSHOT = TypeAdapter(ArchiveSnapshot)

T = TypeVar("T")

# Of two reports of one instant the greater stays, so that no order matters.
_RECORD = """
    INSERT INTO wal_report (cluster, kind, object, at, report, recorded_at)
    VALUES (%(cluster)s, %(kind)s, %(object)s, %(at)s, %(report)s, %(now)s)
    ON CONFLICT (cluster, kind, object) DO UPDATE
    SET at = excluded.at, report = excluded.report, recorded_at = excluded.recorded_at
    WHERE (wal_report.at, wal_report.report) < (excluded.at, excluded.report)
    RETURNING at
"""
_PUT_SNAPSHOT = """
    INSERT INTO wal_archive (cluster, taken_at, snapshot)
    VALUES (%s, %s, %s)
    ON CONFLICT (cluster) DO UPDATE
    SET taken_at = excluded.taken_at, snapshot = excluded.snapshot
    WHERE wal_archive.taken_at <= excluded.taken_at
"""
_RECORD_FRESHNESS = """
    INSERT INTO wal_freshness (cluster, at, freshness)
    VALUES (%s, %s, %s)
    ON CONFLICT (cluster) DO UPDATE
    SET at = excluded.at, freshness = excluded.freshness
    WHERE wal_freshness.at <= excluded.at
"""
# What was committed before a backup began lies in its files; its log is needed from `start_lsn` on,
# unless the backup brings it along.
_NEWEST_BASE = """
    SELECT timeline, wal_included, started_at,
           CASE WHEN wal_included THEN stop_lsn ELSE start_lsn END::text AS lsn
    FROM backup_facts
    WHERE cluster = %s
      AND (verification_failed_at IS NULL OR verified_at > verification_failed_at)
      AND ancestor_failed_at IS NULL
    ORDER BY label DESC
    LIMIT 1
"""


def record_event(session: Session, event: WalEvent, now: datetime) -> bool:
    kept = event if event.at <= now else event.model_copy(update={"at": now})
    values = {
        "cluster": kept.cluster,
        "kind": kept.kind,
        "object": _object(kept),
        "at": kept.at,
        "report": Jsonb(kept.model_dump(mode="json")),
        "now": now,
    }
    return session.execute(_RECORD, values).fetchone() is not None


def _object(event: WalEvent) -> str:
    """Of events with one object only the newest says anything."""
    match event:
        case WalProgress():
            return event.writer
        case WalConflictSeen():
            return event.name
        case WalGapSeen():
            return str(event.gap())
        case _:
            assert_never(event)


def events(session: Session, cluster: ClusterName) -> list[WalEvent]:
    query = "SELECT report FROM wal_report WHERE cluster = %s ORDER BY kind, object"
    return [_EVENT.validate_python(row["report"]) for row in session.execute(query, [cluster])]


def snapshot(session: Session, cluster: ClusterName) -> ArchiveSnapshot | None:
    query = "SELECT snapshot AS value FROM wal_archive WHERE cluster = %s"
    return _read(session.execute(query, [cluster]).fetchone(), _SNAPSHOT)


def put_snapshot(
    session: Session, cluster: ClusterName, taken: ArchiveSnapshot, taken_at: datetime
) -> None:
    session.execute(_PUT_SNAPSHOT, [cluster, taken_at, Jsonb(taken.model_dump(mode="json"))])


def newest_base(session: Session, cluster: ClusterName) -> BackupBase | None:
    row = session.execute(_NEWEST_BASE, [cluster]).fetchone()
    if row is None:
        return None
    lsn = Lsn.parse(row["lsn"])
    return BackupBase(row["timeline"], lsn, row["started_at"], row["wal_included"])


def record_freshness(session: Session, seen: WalFreshness) -> None:
    dump = Jsonb(_FRESHNESS.dump_python(seen, mode="json"))
    session.execute(_RECORD_FRESHNESS, [seen.cluster, seen.at, dump])


def freshness(session: Session, cluster: ClusterName) -> WalFreshness | None:
    query = "SELECT freshness AS value FROM wal_freshness WHERE cluster = %s"
    return _read(session.execute(query, [cluster]).fetchone(), _FRESHNESS)


def _read(row: DictRow | None, adapter: TypeAdapter[T]) -> T | None:
    """None also for what another release wrote in other terms: it is found out anew."""
    try:
        return adapter.validate_python(row["value"]) if row else None
    except ValidationError:
        return None
