-- Restores that people ask for over HTTP: one row each, decided once. The audit trail in the
-- repository is the evidence; this is what the next request is judged by.

CREATE TABLE restore_request (
    id                uuid        PRIMARY KEY, -- also of the job, once it is approved
    cluster           text        NOT NULL,
    target            text        NOT NULL,
    label             text,                    -- null: the plan chooses
    goal              text        NOT NULL,    -- latest, immediate or an instant
    requested_by      text        NOT NULL,
    requested_by_name text        NOT NULL,
    requested_at      timestamptz NOT NULL,
    decision          text CHECK (decision IN ('approve', 'refuse', 'cancel')),
    decided_by        text,
    decided_by_name   text,
    decided_at        timestamptz,
    reason            text,
    CHECK (decision <> 'approve' OR decided_by <> requested_by),
    CHECK ((decision IS NULL) = (decided_by IS NULL)),
    CHECK ((decision IS NULL) = (decided_at IS NULL))
);
CREATE INDEX ON restore_request (requested_at, id);
