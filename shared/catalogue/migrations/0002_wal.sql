-- What is known of WAL: operational throughout. Writers report anew each minute, and a snapshot that
-- is lost is read anew from the archive.

CREATE TABLE wal_report (
    cluster     text        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('progress', 'conflict', 'gap')),
    object      text        NOT NULL, -- the writer, the name in conflict, or where the gap ends
    at          timestamptz NOT NULL, -- by the writer's clock; an older report never replaces a newer
    report      jsonb       NOT NULL, -- the message
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (cluster, kind, object)
);

CREATE TABLE wal_archive (
    cluster  text        PRIMARY KEY,
    taken_at timestamptz NOT NULL,
    snapshot jsonb       NOT NULL -- shared.repository.wal_listing.ArchiveSnapshot
);

CREATE TABLE wal_freshness (
    cluster   text        PRIMARY KEY,
    at        timestamptz NOT NULL,
    freshness jsonb       NOT NULL -- shared.domain.freshness.WalFreshness
);

CREATE TABLE finding (
    number    bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    cluster   text        NOT NULL,
    code      text        NOT NULL, -- of shared.domain.wal_findings.FindingCode
    object    text        NOT NULL,
    since     timestamptz NOT NULL,
    fact      text        NOT NULL, -- the newest while it is open
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
);
-- Opened once, however many instances find it.
CREATE UNIQUE INDEX ON finding (cluster, code, object) WHERE closed_at IS NULL;
