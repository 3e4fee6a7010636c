"""SQL of the port JobLedger; each function runs inside the session's transaction."""

import hashlib
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from shared.catalogue.ports import JobRecord
from shared.catalogue.postgres_session import Session
from shared.domain.cluster import ClusterName
from shared.domain.job import JobProgress, JobReport, JobState, JobVerb, fold
from shared.errors import JobNotFound, MessageInvalid, RequestConflict
from shared.jobs.messages import AnyJob, Job, JobEvent

# Longer than any function may take to hand a message to the queue.
CLAIM_LAPSES = timedelta(minutes=2)
CLAIM_AT_ONCE = 32

_JOB: TypeAdapter[AnyJob] = TypeAdapter(Job)
_PROGRESS = TypeAdapter(JobProgress)

_CREATE = """
    INSERT INTO job (job_id, cluster, verb, state, progress, created_at)
    VALUES (%(job_id)s, %(cluster)s, %(verb)s, %(state)s, %(progress)s, %(now)s)
    ON CONFLICT DO NOTHING
"""
_ASK = "UPDATE job SET request = %s, requested_at = %s WHERE job_id = %s"
_CLAIM = """
    UPDATE job SET claimed_at = %(now)s
    WHERE job_id IN (
        SELECT job_id FROM job
        WHERE sent_at IS NULL AND request IS NOT NULL
          AND (claimed_at IS NULL OR claimed_at < %(lapsed)s)
        ORDER BY requested_at
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    )
    RETURNING request
"""
_SEND_AGAIN = """
    UPDATE job SET sent_at = NULL, claimed_at = NULL
    WHERE job_id = %(job_id)s AND sent_at < %(quiet)s
      AND (received_at IS NULL OR received_at < %(quiet)s)
    RETURNING job_id
"""
_KEEP_EVENT = """
    INSERT INTO job_event (job_id, digest, event, received_at)
    VALUES (%s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_ADVANCE = """
    UPDATE job
    SET progress = %(progress)s, state = %(state)s, heard_at = %(heard_at)s,
        received_at = %(received_at)s, ended_at = %(ended_at)s
    WHERE job_id = %(job_id)s
"""
_JOBS = """
    SELECT * FROM job
    WHERE (%(cluster)s::text IS NULL OR cluster = %(cluster)s)
      AND (%(state)s::text IS NULL OR state = %(state)s)
      AND (%(before)s::uuid IS NULL OR (created_at, job_id) < (
          SELECT last.created_at, last.job_id FROM job AS last WHERE last.job_id = %(before)s))
    ORDER BY created_at DESC, job_id DESC
    LIMIT %(limit)s
"""


def request(session: Session, job: AnyJob, now: datetime) -> bool:
    _create(session, job, now)
    known = locked_job(session, job.job_id)
    if known.request is None and (known.cluster, known.verb) == (job.cluster, job.verb):
        session.execute(_ASK, [Jsonb(job.model_dump(mode="json")), now, job.job_id])
        return True
    if not job.asks_the_same(known.request):
        raise RequestConflict(f"job {job.job_id} was made by another request")
    return False


def claim_unsent(session: Session, now: datetime) -> list[AnyJob]:
    limits = {"now": now, "lapsed": now - CLAIM_LAPSES, "limit": CLAIM_AT_ONCE}
    return [_JOB.validate_python(row["request"]) for row in session.execute(_CLAIM, limits)]


def mark_sent(session: Session, job_id: UUID, now: datetime) -> None:
    session.execute("UPDATE job SET sent_at = %s WHERE job_id = %s", [now, job_id])


def send_again(session: Session, job_id: UUID, quiet_since: datetime) -> bool:
    found = session.execute(_SEND_AGAIN, {"job_id": job_id, "quiet": quiet_since})
    return found.fetchone() is not None


def record_event(session: Session, event: JobEvent, now: datetime) -> JobRecord:
    _create(session, event, now)
    job = locked_job(session, event.job_id)
    if (job.cluster, job.verb) != (event.cluster, event.verb):
        raise MessageInvalid(
            f"job {event.job_id} is a {job.verb} of {job.cluster}, "
            f"not a {event.verb} of {event.cluster}"
        )
    text = event.model_dump_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    kept = session.execute(_KEEP_EVENT, [event.job_id, digest, text, now])
    if kept.rowcount:  # otherwise it is known, however late it comes again
        session.execute(_ADVANCE, _advanced(job, event.report(), now))
    return locked_job(session, event.job_id)


def _advanced(job: JobRecord, report: JobReport, now: datetime) -> dict[str, object]:
    progress = fold(job.progress, report)
    ended_at = job.ended_at if progress.state is job.progress.state else now
    return {
        "job_id": job.job_id,
        "progress": Jsonb(_PROGRESS.dump_python(progress, mode="json")),
        "state": progress.state.value,
        "heard_at": progress.heard_at,
        # What a worker says that was overtaken is no sign of life of the one that counts.
        "received_at": job.received_at if progress.has_overtaken(report) else now,
        "ended_at": ended_at if progress.state.terminal else None,
    }


def _create(session: Session, asked: AnyJob | JobEvent, now: datetime) -> None:
    """A job without anything known of it yet, unless it exists: events may come first."""
    unknown = JobProgress()
    values = {
        "job_id": asked.job_id,
        "cluster": asked.cluster,
        "verb": asked.verb.value,
        "state": unknown.state.value,
        "progress": Jsonb(_PROGRESS.dump_python(unknown, mode="json")),
        "now": now,
    }
    session.execute(_CREATE, values)


def locked_job(session: Session, job_id: UUID) -> JobRecord:
    """Raises JobNotFound. Others who want to change the job wait until this transaction ends."""
    row = session.execute("SELECT * FROM job WHERE job_id = %s FOR UPDATE", [job_id]).fetchone()
    return _known(row, job_id)


def job(session: Session, job_id: UUID) -> JobRecord:
    row = session.execute("SELECT * FROM job WHERE job_id = %s", [job_id]).fetchone()
    return _known(row, job_id)


def jobs_of(session: Session, job_ids: Collection[UUID]) -> dict[UUID, JobRecord]:
    query = "SELECT * FROM job WHERE job_id = ANY(%s)"
    return {row["job_id"]: job_of(row) for row in session.execute(query, [list(job_ids)])}


def running_jobs(session: Session) -> list[JobRecord]:
    query = "SELECT * FROM job WHERE state = 'running' ORDER BY received_at"
    return [job_of(row) for row in session.execute(query)]


def jobs(
    session: Session,
    cluster: ClusterName | None,
    state: JobState | None,
    limit: int,
    before: UUID | None,
) -> list[JobRecord]:
    values = {"cluster": cluster, "state": state, "limit": limit, "before": before}
    return [job_of(row) for row in session.execute(_JOBS, values)]


def job_reports(session: Session, job_id: UUID) -> list[JobReport]:
    query = "SELECT event FROM job_event WHERE job_id = %s"
    events = [JobEvent.model_validate(row["event"]) for row in session.execute(query, [job_id])]
    return sorted((event.report() for event in events), key=lambda report: report.at)


def _known(row: DictRow | None, job_id: UUID) -> JobRecord:
    if row is None:
        raise JobNotFound(f"there is no job {job_id}")
    return job_of(row)


def job_of(row: DictRow) -> JobRecord:
    return JobRecord(
        job_id=row["job_id"],
        cluster=ClusterName(row["cluster"]),
        verb=JobVerb(row["verb"]),
        request=_JOB.validate_python(row["request"]) if row["request"] else None,
        requested_at=row["requested_at"],
        sent_at=row["sent_at"],
        progress=_PROGRESS.validate_python(row["progress"]),
        created_at=row["created_at"],
        received_at=row["received_at"],
        ended_at=row["ended_at"],
        retry_of=row["retry_of"],
        retry=row["retry"],
    )
