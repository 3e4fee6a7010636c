-- What the watch over the fleet remembers: operational, and found out anew when it is lost.

CREATE TABLE watched_cluster (
    cluster    text        PRIMARY KEY,
    first_seen timestamptz NOT NULL -- a new cluster has time until its first backup
);

CREATE TABLE storage_sample (
    cluster    text   NOT NULL, -- `_repository`: all clusters together
    day        date   NOT NULL,
    used_bytes bigint NOT NULL,
    PRIMARY KEY (cluster, day)
);
CREATE INDEX ON drill (cluster, created_at);
