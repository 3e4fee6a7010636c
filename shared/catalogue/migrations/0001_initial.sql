-- Two halves. The first holds facts: each row follows from one signed document, and
-- `pgkeep catalogue rebuild` can make all of them again. The second is operational: jobs, schedule
-- ticks and what was set aside. Facts carry no foreign keys, because documents arrive in any order.

CREATE TABLE cluster (
    name              text        PRIMARY KEY,
    digest            text        NOT NULL, -- the identity: uuid and system identifier
    cluster_uuid      text        NOT NULL,
    system_identifier text        NOT NULL, -- decimal; it passes bigint
    created_at        timestamptz NOT NULL,
    recorded_at       timestamptz NOT NULL  -- operational
);

CREATE TABLE backup (
    cluster          text             NOT NULL,
    label            text COLLATE "C" NOT NULL, -- sorts by time
    digest           text             NOT NULL, -- SHA-256 of backup.json
    kind             text             NOT NULL CHECK (kind IN ('full', 'incremental')),
    parent_label     text,
    previous_label   text,
    counter          bigint           NOT NULL,
    committed_at     timestamptz      NOT NULL,
    started_at       timestamptz      NOT NULL,
    finished_at      timestamptz      NOT NULL,
    source           text             NOT NULL,
    postgres_version integer          NOT NULL, -- server_version_num
    timeline         bigint           NOT NULL,
    start_lsn        pg_lsn           NOT NULL,
    stop_lsn         pg_lsn           NOT NULL,
    wal_included     boolean          NOT NULL,
    suspect          boolean          NOT NULL, -- PostgreSQL reported page-checksum failures
    stored_bytes     bigint           NOT NULL,
    plain_bytes      bigint           NOT NULL,
    findings         jsonb            NOT NULL, -- of the header verification
    recorded_at      timestamptz      NOT NULL, -- operational
    PRIMARY KEY (cluster, label)
);

CREATE TABLE verification (
    cluster         text        NOT NULL,
    id              text        NOT NULL,
    digest          text        NOT NULL, -- SHA-256 of report.json
    label           text        NOT NULL,
    document_digest text        NOT NULL,
    created_at      timestamptz NOT NULL,
    deep            boolean     NOT NULL,
    passed          boolean     NOT NULL,
    report          jsonb       NOT NULL,
    recorded_at     timestamptz NOT NULL, -- operational
    PRIMARY KEY (cluster, id)
);
CREATE INDEX ON verification (cluster, label);

CREATE TABLE drill (
    cluster         text        NOT NULL,
    id              text        NOT NULL,
    digest          text        NOT NULL, -- SHA-256 of report.json
    label           text        NOT NULL,
    document_digest text        NOT NULL,
    created_at      timestamptz NOT NULL,
    verdict         text        NOT NULL, -- proven, failed or inconclusive
    rto_ms          bigint      NOT NULL,
    report          jsonb       NOT NULL,
    recorded_at     timestamptz NOT NULL, -- operational
    PRIMARY KEY (cluster, id)
);
CREATE INDEX ON drill (cluster, label);

-- Committed, verified and proven are three facts, each with its time, never one status. A report
-- counts only for the very document that it names by digest.
CREATE VIEW backup_facts AS
SELECT backup.*,
       checked.verified_at, checked.verification_failed_at,
       rehearsed.proven_at, rehearsed.drill_failed_at
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
) AS rehearsed;

CREATE TABLE job (
    job_id       uuid        PRIMARY KEY,
    cluster      text        NOT NULL,
    verb         text        NOT NULL,
    request      jsonb,                -- the message; null while only events told of the job
    requested_at timestamptz,
    claimed_at   timestamptz,          -- an instance is sending it
    sent_at      timestamptz,          -- the queue has it
    state        text        NOT NULL, -- of shared.domain.job.JobState, as `progress` implies
    heard_at     timestamptz,
    progress     jsonb       NOT NULL  -- shared.domain.job.JobProgress
);
CREATE INDEX ON job (requested_at) WHERE sent_at IS NULL;
CREATE INDEX ON job (cluster, verb) WHERE state IN ('requested', 'running');

CREATE TABLE job_event (
    job_id      uuid        NOT NULL REFERENCES job,
    digest      text        NOT NULL, -- SHA-256 of the event in its one spelling
    event       jsonb       NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (job_id, digest)
);

CREATE TABLE served_tick (
    cluster   text        NOT NULL,
    kind      text        NOT NULL,
    due       timestamptz NOT NULL,
    job_id    uuid        REFERENCES job, -- null: skipped, the previous backup was still running
    served_at timestamptz NOT NULL,
    PRIMARY KEY (cluster, kind, due)
);

CREATE TABLE quarantined (
    object        text        NOT NULL, -- a blob's name, or queue and job id
    code          text        NOT NULL, -- of shared.errors
    fact          text        NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    times         bigint      NOT NULL DEFAULT 1,
    PRIMARY KEY (object, code)
);
