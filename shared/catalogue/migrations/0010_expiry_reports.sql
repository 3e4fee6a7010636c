-- What runs of `expire` deleted, by their signed reports.

CREATE TABLE expiry (
    cluster     text        NOT NULL,
    id          text        NOT NULL, -- of the run
    digest      text        NOT NULL, -- SHA-256 of the stored report
    created_at  timestamptz NOT NULL,
    refused     text,                 -- why nothing was deleted; null: it was not refused
    report      jsonb       NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (cluster, id)
);
CREATE INDEX ON expiry (cluster, created_at);
