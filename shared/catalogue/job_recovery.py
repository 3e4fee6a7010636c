"""SQL of the port JobLedger for jobs that went wrong or are long over; see job_ledger for the rest.

Each function runs inside the session's transaction.
"""

from datetime import datetime, timedelta

from shared.catalogue.job_ledger import job_of, locked_job, record_event, request
from shared.catalogue.ports import JobRecord
from shared.catalogue.postgres_session import Session
from shared.jobs.messages import AnyJob, JobEvent

# A look each minute, and one may be missed: after a longer pause nobody knows what was not heard.
LOOKS_ARE_UNBROKEN = timedelta(minutes=2, seconds=30)
# What one transaction deletes at most, to be over soon.
PRUNE_AT_ONCE = 5000

_SILENT = "SELECT * FROM job WHERE state = 'running' AND received_at < %s ORDER BY received_at"
_NEVER_TAKEN = "SELECT * FROM job WHERE state = 'requested' AND sent_at < %s ORDER BY sent_at"
_LINK = "UPDATE job SET retry_of = %s, retry = %s WHERE job_id = %s"
_LISTEN = """
    INSERT INTO listening (since, heard_at)
    VALUES (%(now)s, CASE WHEN %(hears)s THEN %(now)s::timestamptz END)
    ON CONFLICT (only_row) DO UPDATE
    SET heard_at = CASE WHEN %(hears)s THEN greatest(listening.heard_at, %(now)s) END,
        since = CASE WHEN %(hears)s AND listening.heard_at >= %(unbroken)s
                     THEN listening.since ELSE %(now)s END
    RETURNING since
"""
_FAILED = """
    SELECT * FROM job
    WHERE state = 'failed'
      AND NOT EXISTS (
          SELECT FROM job AS later
          WHERE later.cluster = job.cluster AND later.verb = job.verb
            AND (later.ended_at, later.job_id) > (job.ended_at, job.job_id)
      )
      AND NOT EXISTS (
          SELECT FROM job AS again
          WHERE again.retry_of = coalesce(job.retry_of, job.job_id)
            AND again.state IN ('requested', 'running')
      )
    ORDER BY cluster, verb
"""
# The newest tick of a schedule says what was served, however old it is.
_PRUNE_TICKS = """
    DELETE FROM served_tick WHERE (cluster, kind, due) IN (
        SELECT cluster, kind, due FROM served_tick AS old
        WHERE due < %(before)s AND EXISTS (
            SELECT FROM served_tick AS newer
            WHERE newer.cluster = old.cluster AND newer.kind = old.kind AND newer.due > old.due
        )
        LIMIT %(limit)s
    )
"""
_PRUNE_JOBS = """
    WITH gone AS (
        SELECT job_id FROM job
        WHERE created_at < %(before)s AND ended_at < %(before)s
          AND NOT EXISTS (SELECT FROM served_tick WHERE served_tick.job_id = job.job_id)
        ORDER BY created_at
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ),
    unsaid AS (DELETE FROM job_event USING gone WHERE job_event.job_id = gone.job_id)
    DELETE FROM job USING gone WHERE job.job_id = gone.job_id
"""


def silent_jobs(session: Session, received_before: datetime) -> list[JobRecord]:
    return [job_of(row) for row in session.execute(_SILENT, [received_before])]


def never_taken(session: Session, sent_before: datetime) -> list[JobRecord]:
    return [job_of(row) for row in session.execute(_NEVER_TAKEN, [sent_before])]


def give_up(
    session: Session, end: JobEvent, retry: AnyJob | None, quiet_since: datetime, now: datetime
) -> bool:
    job = locked_job(session, end.job_id)
    news = [time for time in (job.received_at, job.sent_at) if time is not None]
    if job.progress.state.terminal or any(time >= quiet_since for time in news):
        return False
    record_event(session, end, now)
    if retry is not None and request(session, retry, now):
        session.execute(_LINK, [job.first, job.retry + 1, retry.job_id])
    return True


def listen(session: Session, now: datetime, *, hears: bool) -> datetime:
    values = {"now": now, "hears": hears, "unbroken": now - LOOKS_ARE_UNBROKEN}
    [row] = session.execute(_LISTEN, values)
    since: datetime = row["since"]
    return since


def failed_jobs(session: Session) -> list[JobRecord]:
    return [job_of(row) for row in session.execute(_FAILED)]


def prune_jobs(session: Session, before: datetime) -> int:
    values = {"before": before, "limit": PRUNE_AT_ONCE}
    session.execute(_PRUNE_TICKS, values)
    return session.execute(_PRUNE_JOBS, values).rowcount
