"""SQL of the port JobLedger; each function runs inside the session's transaction."""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from shared.catalogue.ports import JobRecord
from shared.catalogue.postgres_session import Session
from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.job import JobProgress, JobReport, JobVerb, fold
from shared.domain.schedule import DueBackup
from shared.errors import JobNotFound, MessageInvalid, RequestConflict
from shared.jobs.messages import AnyJob, BackupJob, Job, JobEvent

# Longer than any function may take to hand a message to the queue.
CLAIM_LAPSES = timedelta(minutes=2)
CLAIM_AT_ONCE = 32

_JOB: TypeAdapter[AnyJob] = TypeAdapter(Job)
_PROGRESS = TypeAdapter(JobProgress)

_CREATE = """
    INSERT INTO job (job_id, cluster, verb, state, progress)
    VALUES (%(job_id)s, %(cluster)s, %(verb)s, %(state)s, %(progress)s)
    ON CONFLICT DO NOTHING
"""
_ASK = "UPDATE job SET request = %s, requested_at = %s WHERE job_id = %s"
_SERVE_TICK = """
    INSERT INTO served_tick (cluster, kind, due, served_at)
    VALUES (%s, %s, %s, %s)
    ON CONFLICT DO NOTHING
    RETURNING due
"""
_TICK_JOB = "UPDATE served_tick SET job_id = %s WHERE (cluster, kind, due) = (%s, %s, %s)"
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
      AND (heard_at IS NULL OR heard_at < %(quiet)s)
    RETURNING job_id
"""
_KEEP_EVENT = """
    INSERT INTO job_event (job_id, digest, event, received_at)
    VALUES (%s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_ADVANCE = "UPDATE job SET progress = %s, state = %s, heard_at = %s WHERE job_id = %s"


def request(session: Session, job: AnyJob, now: datetime) -> bool:
    _create(session, job.job_id, job.cluster, job.verb)
    known = locked_job(session, job.job_id)
    if known.request is None and (known.cluster, known.verb) == (job.cluster, job.verb):
        session.execute(_ASK, [Jsonb(job.model_dump(mode="json")), now, job.job_id])
        return True
    if known.request != job:
        raise RequestConflict(f"job {job.job_id} was made by another request")
    return False


def request_for_tick(session: Session, tick: DueBackup, job: BackupJob, now: datetime) -> bool:
    if not serve_tick(session, tick, now):
        return False
    request(session, job, now)
    session.execute(_TICK_JOB, [job.job_id, *_tick_key(tick)])
    return True


def serve_tick(session: Session, tick: DueBackup, now: datetime) -> bool:
    """The unique key decides among several instances; False means another was first."""
    return session.execute(_SERVE_TICK, [*_tick_key(tick), now]).fetchone() is not None


def _tick_key(tick: DueBackup) -> tuple[str, str, datetime]:
    return (tick.cluster, tick.kind.value, tick.due)


def served_ticks(session: Session) -> Mapping[tuple[ClusterName, BackupKind], datetime]:
    query = "SELECT cluster, kind, max(due) AS due FROM served_tick GROUP BY cluster, kind"
    return {
        (ClusterName(row["cluster"]), BackupKind(row["kind"])): row["due"]
        for row in session.execute(query)
    }


def claim_unsent(session: Session, now: datetime) -> list[AnyJob]:
    limits = {"now": now, "lapsed": now - CLAIM_LAPSES, "limit": CLAIM_AT_ONCE}
    return [_JOB.validate_python(row["request"]) for row in session.execute(_CLAIM, limits)]


def mark_sent(session: Session, job_id: UUID, now: datetime) -> None:
    session.execute("UPDATE job SET sent_at = %s WHERE job_id = %s", [now, job_id])


def send_again(session: Session, job_id: UUID, quiet_since: datetime) -> bool:
    found = session.execute(_SEND_AGAIN, {"job_id": job_id, "quiet": quiet_since})
    return found.fetchone() is not None


def record_event(session: Session, event: JobEvent, now: datetime) -> JobRecord:
    _create(session, event.job_id, event.cluster, event.verb)
    job = locked_job(session, event.job_id)
    if (job.cluster, job.verb) != (event.cluster, event.verb):
        raise MessageInvalid(
            f"job {event.job_id} is a {job.verb} of {job.cluster}, "
            f"not a {event.verb} of {event.cluster}"
        )
    text = event.model_dump_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    session.execute(_KEEP_EVENT, [event.job_id, digest, text, now])
    progress = fold(job.progress, event.report())
    dump = Jsonb(_PROGRESS.dump_python(progress, mode="json"))
    session.execute(_ADVANCE, [dump, progress.state.value, progress.heard_at, event.job_id])
    return locked_job(session, event.job_id)


def _create(session: Session, job_id: UUID, cluster: str, verb: JobVerb) -> None:
    """A job without anything known of it yet, unless it exists: events may come first."""
    unknown = JobProgress()
    values = {
        "job_id": job_id,
        "cluster": cluster,
        "verb": verb.value,
        "state": unknown.state.value,
        "progress": Jsonb(_PROGRESS.dump_python(unknown, mode="json")),
    }
    session.execute(_CREATE, values)


def locked_job(session: Session, job_id: UUID) -> JobRecord:
    """Raises JobNotFound. Others who want to change the job wait until this transaction ends."""
    row = session.execute("SELECT * FROM job WHERE job_id = %s FOR UPDATE", [job_id]).fetchone()
    return _job(row, job_id)


def job(session: Session, job_id: UUID) -> JobRecord:
    row = session.execute("SELECT * FROM job WHERE job_id = %s", [job_id]).fetchone()
    return _job(row, job_id)


def running_jobs(session: Session) -> list[JobRecord]:
    query = "SELECT * FROM job WHERE state = 'running' ORDER BY heard_at"
    return [_job(row, row["job_id"]) for row in session.execute(query)]


def job_reports(session: Session, job_id: UUID) -> list[JobReport]:
    query = "SELECT event FROM job_event WHERE job_id = %s"
    events = [JobEvent.model_validate(row["event"]) for row in session.execute(query, [job_id])]
    return sorted((event.report() for event in events), key=lambda report: report.at)


def _job(row: DictRow | None, job_id: UUID) -> JobRecord:
    if row is None:
        raise JobNotFound(f"there is no job {job_id}")
    return JobRecord(
        job_id=row["job_id"],
        cluster=ClusterName(row["cluster"]),
        verb=JobVerb(row["verb"]),
        request=_JOB.validate_python(row["request"]) if row["request"] else None,
        requested_at=row["requested_at"],
        sent_at=row["sent_at"],
        progress=_PROGRESS.validate_python(row["progress"]),
    )
