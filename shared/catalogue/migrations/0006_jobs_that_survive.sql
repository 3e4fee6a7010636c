-- What it takes to give up a silent job without wronging one that lives, and to ask for it again.
-- Times are by the function app's clock: those of workers' hosts may be wrong.

ALTER TABLE job
    ADD COLUMN created_at  timestamptz,                -- when the row was made
    ADD COLUMN received_at timestamptz,                -- when something new of it was last taken in
    ADD COLUMN ended_at    timestamptz,                -- when its end was taken in
    ADD COLUMN retry_of    uuid,                       -- the job that was asked for first
    ADD COLUMN retry       integer NOT NULL DEFAULT 0; -- which request for it in a row; 0: the first
UPDATE job
SET created_at = coalesce(requested_at, heard_at, now()),
    received_at = heard_at,
    ended_at = CASE WHEN state IN ('succeeded', 'failed') THEN coalesce(heard_at, now()) END;
ALTER TABLE job ALTER COLUMN created_at SET NOT NULL;

CREATE INDEX ON job (received_at) WHERE state = 'running';
CREATE INDEX ON job (sent_at) WHERE state = 'requested';
CREATE INDEX ON job (created_at, job_id);
CREATE INDEX ON job (cluster, created_at, job_id);
CREATE INDEX ON job (cluster, verb, ended_at, job_id) WHERE ended_at IS NOT NULL;
CREATE INDEX ON job (ended_at) WHERE state = 'failed';
CREATE INDEX ON job (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX ON served_tick (job_id) WHERE job_id IS NOT NULL;

-- One row: since when each look, a minute after the other, has found the event queue in order.
CREATE TABLE listening (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    since    timestamptz NOT NULL,
    heard_at timestamptz -- the last look; null: it did not hear, and the next begins anew
);
