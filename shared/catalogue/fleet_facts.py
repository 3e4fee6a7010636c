"""SQL of the port FleetFacts; each function runs inside the session's transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from psycopg.rows import DictRow
from pydantic import TypeAdapter, ValidationError

from shared.catalogue.fleet_port import FleetMember
from shared.catalogue.postgres_session import Session
from shared.domain.backup_freshness import BackupAges
from shared.domain.cluster import ClusterName
from shared.domain.freshness import WalFreshness
from shared.domain.kept_backup import FUTURE
from shared.domain.rto_prediction import DRILLS_CONSIDERED, DrillTimes
from shared.domain.storage_use import StorageSample

_FRESHNESS = TypeAdapter(WalFreshness)
_SAMPLES_KEPT: Final = timedelta(days=400)  # a year, to look at

_SEE = """
    INSERT INTO watched_cluster (cluster, first_seen)
    SELECT cluster, %s FROM unnest(%s::text[]) AS wanted (cluster)
    ON CONFLICT DO NOTHING
"""
# A backup on a damaged ancestor is not verified, whatever its own report said: see backup_facts.
# What a wrong clock dated in the future would hide for years that nothing comes any more.
_FLEET = """
    SELECT wanted.cluster, watched.first_seen, newest.committed_at,
           verified.committed_at AS verified_at, proven.at AS proven_at,
           geo_safe.committed_at AS geo_safe_at,
           coalesce(newest_full.plain_bytes, 0) AS restored_bytes,
           coalesce(sizes.stored_bytes, 0)::bigint AS stored_bytes,
           coalesce(wal.bytes, 0)::bigint AS wal_bytes, fresh.freshness,
           CASE WHEN newest.timeline = (fresh.freshness ->> 'timeline')::bigint
                THEN greatest(0, (fresh.freshness ->> 'through_lsn')::pg_lsn - newest.start_lsn)
           END::bigint AS replayed_bytes
    FROM unnest(%(clusters)s::text[]) AS wanted (cluster)
    JOIN watched_cluster AS watched ON watched.cluster = wanted.cluster
    LEFT JOIN LATERAL (
        SELECT committed_at, timeline, start_lsn FROM backup
        WHERE backup.cluster = wanted.cluster AND committed_at <= %(latest)s
        ORDER BY label DESC LIMIT 1
    ) AS newest ON true
    LEFT JOIN LATERAL (
        SELECT committed_at FROM backup_facts AS facts
        WHERE facts.cluster = wanted.cluster AND facts.ancestor_failed_at IS NULL
          AND facts.verified_at > coalesce(facts.verification_failed_at, '-infinity')
          AND facts.committed_at <= %(latest)s
        ORDER BY label DESC LIMIT 1
    ) AS verified ON true
    LEFT JOIN LATERAL (
        SELECT committed_at FROM backup
        WHERE backup.cluster = wanted.cluster AND geo_safe_at IS NOT NULL
          AND committed_at <= %(latest)s
        ORDER BY label DESC LIMIT 1
    ) AS geo_safe ON true
    LEFT JOIN LATERAL (
        SELECT max(created_at) AS at FROM drill
        WHERE drill.cluster = wanted.cluster AND verdict = 'proven' AND created_at <= %(latest)s
    ) AS proven ON true
    LEFT JOIN LATERAL (
        SELECT plain_bytes FROM backup
        WHERE backup.cluster = wanted.cluster AND kind = 'full' AND committed_at <= %(latest)s
        ORDER BY label DESC LIMIT 1
    ) AS newest_full ON true
    LEFT JOIN LATERAL (
        SELECT sum(stored_bytes) AS stored_bytes FROM backup WHERE backup.cluster = wanted.cluster
    ) AS sizes ON true
    LEFT JOIN LATERAL (
        SELECT sum((piece ->> 'stored_bytes')::bigint) AS bytes
        FROM wal_archive, jsonb_array_elements(wal_archive.snapshot -> 'ranges') AS piece
        WHERE wal_archive.cluster = wanted.cluster
    ) AS wal ON true
    LEFT JOIN wal_freshness AS fresh ON fresh.cluster = wanted.cluster
"""
# Only those that went to their end say how long it takes to get there.
_DRILLS = """
    SELECT wanted.cluster, newest.*
    FROM unnest(%(clusters)s::text[]) AS wanted (cluster)
    CROSS JOIN LATERAL (
        SELECT created_at, rto_ms, report FROM drill
        WHERE drill.cluster = wanted.cluster AND verdict = 'proven' AND created_at <= %(latest)s
        ORDER BY created_at DESC, id LIMIT %(limit)s
    ) AS newest
    ORDER BY newest.created_at DESC
"""
_PUT_SAMPLES = """
    INSERT INTO storage_sample (cluster, day, used_bytes)
    SELECT cluster, %s, used FROM unnest(%s::text[], %s::bigint[]) AS given (cluster, used)
    ON CONFLICT (cluster, day) DO UPDATE SET used_bytes = excluded.used_bytes
    WHERE storage_sample.used_bytes <> excluded.used_bytes
"""
_DROP_SAMPLES = "DELETE FROM storage_sample WHERE cluster = ANY (%s) AND day < %s"
_SAMPLES = """
    SELECT cluster, day, used_bytes FROM storage_sample
    WHERE cluster = ANY (%s) AND day >= %s ORDER BY cluster, day
"""


def fleet(
    session: Session, clusters: Sequence[ClusterName], now: datetime
) -> dict[ClusterName, FleetMember]:
    session.execute(_SEE, [now, list(clusters)])
    wanted = {"clusters": list(clusters), "latest": now + FUTURE, "limit": DRILLS_CONSIDERED}
    drills = _drills(session, wanted)
    rows = session.execute(_FLEET, wanted)
    return {ClusterName(row["cluster"]): _member(row, drills) for row in rows}


def put_samples(session: Session, used: Mapping[ClusterName, int], day: date) -> None:
    session.execute(_PUT_SAMPLES, [day, list(used), list(used.values())])
    session.execute(_DROP_SAMPLES, [list(used), day - _SAMPLES_KEPT])


def samples(
    session: Session, clusters: Iterable[ClusterName], since: date
) -> dict[ClusterName, list[StorageSample]]:
    found: dict[ClusterName, list[StorageSample]] = defaultdict(list)
    for row in session.execute(_SAMPLES, [list(clusters), since]):
        found[ClusterName(row["cluster"])].append(StorageSample(row["day"], row["used_bytes"]))
    return dict(found)


def _drills(session: Session, wanted: Mapping[str, object]) -> dict[ClusterName, list[DrillTimes]]:
    found: dict[ClusterName, list[DrillTimes]] = defaultdict(list)
    for row in session.execute(_DRILLS, wanted):
        report = row["report"]
        found[ClusterName(row["cluster"])].append(
            DrillTimes(
                at=row["created_at"],
                restored_bytes=report.get("restored_bytes", 0),
                replayed_bytes=report.get("replayed_bytes", 0),
                phases=report.get("phases_ms", {}),
                rto_ms=row["rto_ms"],
            )
        )
    return found


def _member(row: DictRow, drills: Mapping[ClusterName, Sequence[DrillTimes]]) -> FleetMember:
    cluster = ClusterName(row["cluster"])
    return FleetMember(
        ages=BackupAges(
            cluster=cluster,
            first_seen=row["first_seen"],
            committed_at=row["committed_at"],
            verified_at=row["verified_at"],
            proven_at=row["proven_at"],
        ),
        stored_bytes=row["stored_bytes"],
        wal_bytes=row["wal_bytes"],
        restored_bytes=row["restored_bytes"],
        replayed_bytes=row["replayed_bytes"] or 0,
        geo_safe_at=row["geo_safe_at"],
        wal=_freshness(row["freshness"]),
        drills=tuple(drills.get(cluster, ())),
    )


def _freshness(value: object) -> WalFreshness | None:
    """None also for what another release wrote in other terms: it is found out anew."""
    try:
        return None if value is None else _FRESHNESS.validate_python(value)
    except ValidationError:
        return None
