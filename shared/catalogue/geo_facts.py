"""SQL of the port GeoFacts; each function runs inside the session's transaction."""

from collections.abc import Collection
from datetime import datetime

from psycopg.rows import DictRow

from shared.catalogue.postgres_session import Session
from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.replication import (
    CLOCK_MARGIN,
    GeoReplication,
    PendingBackup,
    ReplicationState,
)

# While a secondary is being filled, times of the one before it mean nothing.
_NOTE = """
    INSERT INTO geo_replication (state, last_sync_time, seen_at)
    VALUES (%(state)s, %(last_sync_time)s, %(now)s)
    ON CONFLICT (only_row) DO UPDATE
    SET state = excluded.state, seen_at = excluded.seen_at,
        last_sync_time = CASE WHEN excluded.state = 'bootstrap' THEN NULL
            ELSE greatest(geo_replication.last_sync_time, excluded.last_sync_time) END
    RETURNING last_sync_time
"""
_PENDING = """
    SELECT backup.cluster, backup.label, backup.committed_at, backup.parent_label,
           backup.parent_label IS NULL OR parent.geo_safe_at IS NOT NULL AS parent_safe
    FROM backup
    LEFT JOIN backup AS parent
      ON parent.cluster = backup.cluster AND parent.label = backup.parent_label
    WHERE backup.geo_safe_at IS NULL
    ORDER BY backup.label, backup.cluster
"""
_MARK = """
    UPDATE backup SET geo_safe_at = %s
    FROM unnest(%s::text[], %s::text[]) AS safe (cluster, label)
    WHERE (backup.cluster, backup.label) = (safe.cluster, safe.label) AND geo_safe_at IS NULL
"""
_NOTE_WAL = """
    INSERT INTO geo_wal (cluster, seen_at, seen_through)
    SELECT cluster, at, (freshness->>'protected_at')::timestamptz
    FROM wal_freshness WHERE freshness->>'protected_at' IS NOT NULL
    ON CONFLICT (cluster) DO UPDATE
    SET safe_through = geo_wal.seen_through,
        seen_at = excluded.seen_at, seen_through = excluded.seen_through
    WHERE geo_wal.seen_at < %s
"""


def note(session: Session, seen: GeoReplication, now: datetime) -> datetime | None:
    filling = seen.state is ReplicationState.BOOTSTRAP
    if filling:
        session.execute("UPDATE backup SET geo_safe_at = NULL WHERE geo_safe_at IS NOT NULL")
        session.execute("DELETE FROM geo_wal")
    time = None if filling else seen.last_sync_time
    values = {"state": seen.state.value, "last_sync_time": time, "now": now}
    row = session.execute(_NOTE, values).fetchone()
    return row["last_sync_time"] if row else None


def last_sync_time(session: Session) -> datetime | None:
    row = session.execute("SELECT last_sync_time FROM geo_replication").fetchone()
    return row["last_sync_time"] if row else None


def pending(session: Session) -> list[PendingBackup]:
    return [_pending(row) for row in session.execute(_PENDING)]


def mark(session: Session, backups: Collection[PendingBackup], now: datetime) -> None:
    clusters = [one.cluster for one in backups]
    labels = [one.label.text for one in backups]
    session.execute(_MARK, [now, clusters, labels])


def note_wal(session: Session, reached: datetime) -> None:
    session.execute(_NOTE_WAL, [reached - CLOCK_MARGIN])


def wal_safe_through(session: Session, cluster: ClusterName) -> datetime | None:
    query = "SELECT safe_through FROM geo_wal WHERE cluster = %s"
    row = session.execute(query, [cluster]).fetchone()
    return row["safe_through"] if row else None


def _pending(row: DictRow) -> PendingBackup:
    parent = row["parent_label"]
    return PendingBackup(
        cluster=ClusterName(row["cluster"]),
        label=BackupLabel(row["label"]),
        committed_at=row["committed_at"],
        parent=None if parent is None else BackupLabel(parent),
        parent_safe=row["parent_safe"],
    )
