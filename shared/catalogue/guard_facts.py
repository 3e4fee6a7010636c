"""SQL of the port GuardFacts: one pass over each table, where a view would ask backup by backup."""

from collections.abc import Collection

from psycopg.rows import DictRow

from shared.catalogue.postgres_session import Session
from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.needed_until import GuardedBackup

# A judgement counts only for the very document that it names. Good is as retention has it: found
# sound by a verification or a drill, and by the newest of neither damaged.
_GUARDED = """
    WITH checked AS (
        SELECT cluster, label, document_digest AS digest,
               max(created_at) FILTER (WHERE passed AND deep) AS good_at,
               max(created_at) FILTER (WHERE NOT passed)      AS bad_at
        FROM verification WHERE cluster = ANY(%(clusters)s)
        GROUP BY cluster, label, document_digest
    ),
    rehearsed AS (
        SELECT cluster, label, document_digest AS digest,
               max(created_at) FILTER (WHERE verdict = 'proven') AS good_at,
               max(created_at) FILTER (WHERE verdict = 'failed') AS bad_at
        FROM drill WHERE cluster = ANY(%(clusters)s)
        GROUP BY cluster, label, document_digest
    )
    SELECT cluster, label, parent_label,
           NOT suspect
               AND coalesce(checked.good_at, rehearsed.good_at) IS NOT NULL
               AND coalesce(checked.good_at > checked.bad_at, checked.bad_at IS NULL)
               AND coalesce(rehearsed.good_at > rehearsed.bad_at, rehearsed.bad_at IS NULL)
               AS good
    FROM backup
    LEFT JOIN checked USING (cluster, label, digest)
    LEFT JOIN rehearsed USING (cluster, label, digest)
    WHERE cluster = ANY(%(clusters)s)
    ORDER BY cluster, label
"""


def guarded_backups(
    session: Session, clusters: Collection[ClusterName]
) -> dict[ClusterName, list[GuardedBackup]]:
    found: dict[ClusterName, list[GuardedBackup]] = {}
    for row in session.execute(_GUARDED, {"clusters": list(clusters)}):
        found.setdefault(ClusterName(row["cluster"]), []).append(_guarded(row))
    return found


def _guarded(row: DictRow) -> GuardedBackup:
    parent = row["parent_label"]
    return GuardedBackup(
        BackupLabel(row["label"]), None if parent is None else BackupLabel(parent), row["good"]
    )
