-- Which backups are whole in the second region: operational, found out again after a rebuild.

DROP VIEW backup_facts;

ALTER TABLE backup
    ADD COLUMN geo_safe_at timestamptz; -- when that was found; null: not known to be
CREATE INDEX ON backup (committed_at) WHERE geo_safe_at IS NULL;

-- As before; a view has the columns that its tables had when it was made.
CREATE VIEW backup_facts AS
SELECT backup.*,
       checked.verified_at, checked.verification_failed_at,
       rehearsed.proven_at, rehearsed.drill_failed_at,
       below.ancestor_failed_at
FROM backup
CROSS JOIN LATERAL (
    SELECT max(created_at) FILTER (WHERE passed AND deep) AS verified_at,
           max(created_at) FILTER (WHERE NOT passed)      AS verification_failed_at
    FROM verification
    WHERE verification.cluster = backup.cluster
      AND verification.label = backup.label
      AND verification.document_digest = backup.digest
) AS checked
CROSS JOIN LATERAL (
    SELECT max(created_at) FILTER (WHERE verdict = 'proven') AS proven_at,
           max(created_at) FILTER (WHERE verdict = 'failed') AS drill_failed_at
    FROM drill
    WHERE drill.cluster = backup.cluster
      AND drill.label = backup.label
      AND drill.document_digest = backup.digest
) AS rehearsed
CROSS JOIN LATERAL (
    WITH RECURSIVE ancestor AS (
        SELECT older.cluster, older.label, older.digest, older.parent_label
        FROM backup AS older
        WHERE older.cluster = backup.cluster AND older.label = backup.parent_label
        UNION
        SELECT older.cluster, older.label, older.digest, older.parent_label
        FROM ancestor
        JOIN backup AS older
          ON older.cluster = ancestor.cluster AND older.label = ancestor.parent_label
    ),
    judged AS (
        SELECT max(created_at) FILTER (WHERE passed AND deep) AS passed_at,
               max(created_at) FILTER (WHERE NOT passed)      AS failed_at
        FROM ancestor
        JOIN verification
          ON verification.cluster = ancestor.cluster
         AND verification.label = ancestor.label
         AND verification.document_digest = ancestor.digest
        GROUP BY ancestor.label
    )
    SELECT max(failed_at) AS ancestor_failed_at
    FROM judged
    WHERE passed_at IS NULL OR passed_at <= failed_at
) AS below;

-- One row: what the account said last of its secondary.
CREATE TABLE geo_replication (
    only_row       boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    state          text        NOT NULL, -- of shared.domain.replication.ReplicationState
    last_sync_time timestamptz,          -- the latest ever told by this secondary
    seen_at        timestamptz NOT NULL
);

-- How much of each cluster's WAL is there. What was protected at a look is safe in the secondary as
-- soon as Last Sync Time has passed that look.
CREATE TABLE geo_wal (
    cluster      text        PRIMARY KEY,
    seen_at      timestamptz NOT NULL, -- the look that it has to pass next
    seen_through timestamptz NOT NULL, -- commits before it were protected then
    safe_through timestamptz           -- commits before it are safe; null: it passed no look yet
);
