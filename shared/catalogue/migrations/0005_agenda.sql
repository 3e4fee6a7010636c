-- When it is whose turn: operational, made anew from the settings whenever these have changed.

CREATE TABLE agenda (
    cluster text        NOT NULL,
    kind    text        NOT NULL, -- shared.domain.schedule.ScheduleKind
    cron    text        NOT NULL,
    delay   interval    NOT NULL, -- how much later than its ticks this one is served
    next_at timestamptz NOT NULL, -- when to look at it again
    served  timestamptz,          -- the newest tick that was dealt with
    skipped integer     NOT NULL DEFAULT 0, -- in a row, because the one before still ran
    PRIMARY KEY (cluster, kind)
);
CREATE INDEX ON agenda (kind, next_at, cluster);
CREATE INDEX ON agenda (skipped) WHERE skipped > 0;

-- One row: the digest of the schedules that the agenda follows.
CREATE TABLE agenda_source (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    digest   text    NOT NULL
);

ALTER TABLE served_tick
    ADD COLUMN passed text; -- why there is no job; null: there is one
