-- Restore requests lapse, and each caller of the HTTP interface has a budget of requests.

ALTER TABLE restore_request
    -- The default is for an instance of the release before, while both run.
    ADD COLUMN lapses_at timestamptz NOT NULL DEFAULT now() + interval '7 days',
    DROP CONSTRAINT restore_request_decision_check,
    ADD CONSTRAINT restore_request_decision_check
        CHECK (decision IN ('approve', 'refuse', 'cancel', 'lapse'));
UPDATE restore_request SET lapses_at = requested_at + interval '7 days';
CREATE INDEX ON restore_request (lapses_at) WHERE decision IS NULL;

CREATE TABLE request_budget (
    owner    text        PRIMARY KEY, -- a caller's changes or reads, or everybody's changes
    whole_at timestamptz NOT NULL     -- when nothing of it is spent any more, if nobody asks
);
