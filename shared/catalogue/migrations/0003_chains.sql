-- Incremental backups stand on their ancestors: damage below is damage of every link above.

DROP VIEW backup_facts;

ALTER TABLE backup
    ADD COLUMN depth        integer NOT NULL DEFAULT 0, -- incrementals up to and including it
    ADD COLUMN full_instead jsonb;                      -- why it is full; null: nobody asked else

-- As before, and `ancestor_failed_at`: when the newest verification of an ancestor found it damaged.
-- UNION, not UNION ALL: even parents that somebody made up in a circle come to an end.
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
