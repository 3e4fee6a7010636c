-- Findings of every kind, not of WAL alone: each brings the names and numbers behind its sentence.
-- `cluster` is `_repository` for what concerns the whole repository.

ALTER TABLE finding
    ADD COLUMN evidence jsonb NOT NULL DEFAULT '{}';
CREATE INDEX ON finding (opened_at) WHERE closed_at IS NULL;
