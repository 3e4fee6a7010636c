"""SQL of the port Agenda; each function runs inside the session's transaction.

Whole batches go as arrays: a fleet's midnight is one statement for each table.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from shared.catalogue.agenda_port import NewestBackups, ServedTick
from shared.catalogue.postgres_session import Session
from shared.domain.agenda import AgendaChanges, AgendaEntry, Key
from shared.domain.cluster import ClusterName
from shared.domain.dispatch_plan import ActiveJob, kind_of
from shared.domain.job import JobProgress, JobState, JobVerb
from shared.domain.schedule import ScheduleKind

_PROGRESS = TypeAdapter(JobProgress)
_KINDS = frozenset(kind.value for kind in ScheduleKind)

_PUT = """
    INSERT INTO agenda (cluster, kind, cron, delay, next_at, served, skipped)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::interval[], %b::timestamptz[],
                         %b::timestamptz[], %b::integer[])
    ON CONFLICT (cluster, kind) DO UPDATE
    SET cron = excluded.cron, delay = excluded.delay, next_at = excluded.next_at,
        served = greatest(agenda.served, excluded.served), skipped = excluded.skipped
"""
_REMOVE = """
    DELETE FROM agenda
    WHERE (cluster, kind) IN (SELECT * FROM unnest(%b::text[], %b::text[]))
"""
_SET_SOURCE = """
    INSERT INTO agenda_source (digest) VALUES (%s)
    ON CONFLICT (only_row) DO UPDATE SET digest = excluded.digest
"""
DUE = """
    SELECT entry.* FROM unnest(%s::text[]) AS wanted (kind)
    CROSS JOIN LATERAL (
        SELECT * FROM agenda
        WHERE agenda.kind = wanted.kind AND next_at <= %s
        ORDER BY next_at, cluster LIMIT %s
    ) AS entry
    ORDER BY next_at, cluster, kind
"""
# Whoever was first has moved the entry on, or changed it: then it is no longer what the decision
# was made about.
_MOVE = """
    UPDATE agenda
    SET next_at = given.next_at, served = given.served, skipped = given.skipped
    FROM unnest(%b::text[], %b::text[], %b::text[], %b::interval[], %b::timestamptz[],
                %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::integer[])
      AS given (cluster, kind, cron, delay, was_next_at, was_served, next_at, served, skipped)
    WHERE (agenda.cluster, agenda.kind) = (given.cluster, given.kind)
      AND (agenda.cron, agenda.delay) = (given.cron, given.delay)
      AND agenda.next_at = given.was_next_at
      AND agenda.served IS NOT DISTINCT FROM given.was_served
    RETURNING agenda.cluster, agenda.kind
"""
_TICKS = """
    INSERT INTO served_tick (cluster, kind, due, served_at, passed)
    SELECT cluster, kind, due, %s, passed
    FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::text[])
      AS given (cluster, kind, due, passed)
    ON CONFLICT DO NOTHING
    RETURNING cluster, kind
"""
_JOBS = """
    INSERT INTO job (job_id, cluster, verb, state, progress, request, requested_at, created_at)
    SELECT job_id, cluster, verb, %s, %s, request, %s, %s
    FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::jsonb[])
      AS given (job_id, cluster, verb, request)
    ON CONFLICT DO NOTHING
"""
_TICK_JOBS = """
    UPDATE served_tick SET job_id = given.job_id
    FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::uuid[])
      AS given (cluster, kind, due, job_id)
    WHERE (served_tick.cluster, served_tick.kind, served_tick.due)
        = (given.cluster, given.kind, given.due)
"""
_NEWEST = """
    SELECT wanted.cluster, newest.label, newest.digest, verified.label AS verified_label
    FROM unnest(%b::text[]) AS wanted (cluster)
    CROSS JOIN LATERAL (
        SELECT label, digest FROM backup
        WHERE backup.cluster = wanted.cluster
        ORDER BY label DESC LIMIT 1
    ) AS newest
    LEFT JOIN LATERAL (
        SELECT label FROM backup_facts AS facts
        WHERE facts.cluster = wanted.cluster AND facts.ancestor_failed_at IS NULL
          AND facts.verified_at > coalesce(facts.verification_failed_at, '-infinity')
        ORDER BY label DESC LIMIT 1
    ) AS verified ON true
"""


def source_digest(session: Session) -> str | None:
    row = session.execute("SELECT digest FROM agenda_source").fetchone()
    return None if row is None else str(row["digest"])


def entries(session: Session, cluster: ClusterName | None) -> list[AgendaEntry]:
    query = """
        SELECT * FROM agenda WHERE %(cluster)s::text IS NULL OR cluster = %(cluster)s
        ORDER BY next_at, cluster, kind
    """
    return [_entry(row) for row in session.execute(query, {"cluster": cluster}) if _is_known(row)]


def change(session: Session, changes: AgendaChanges, digest: str) -> None:
    """Instances that follow the settings at once do so one after the other."""
    session.execute("SELECT pg_advisory_xact_lock(hashtext('agenda'))")
    session.execute(_PUT, _columns(_row(one) for one in changes.put) or [[]] * 7)
    session.execute(_REMOVE, _columns(_key(key) for key in changes.remove) or [[]] * 2)
    session.execute(_SET_SOURCE, [digest])


def due_entries(session: Session, now: datetime, limit: int) -> list[AgendaEntry]:
    return [_entry(row) for row in session.execute(DUE, [sorted(_KINDS), now, limit])]


def often_skipped(session: Session, times: int) -> list[AgendaEntry]:
    query = "SELECT * FROM agenda WHERE skipped > 0 AND skipped >= %s ORDER BY cluster, kind"
    return [_entry(row) for row in session.execute(query, [times]) if _is_known(row)]


def active_jobs(session: Session) -> list[ActiveJob]:
    query = """
        SELECT cluster, verb, request ->> 'kind' AS kind, request ->> 'level' AS level,
               coalesce((request ->> 'whole_chain')::boolean, false) AS whole_chain
        FROM job WHERE state IN ('requested', 'running')
    """
    return [_active(row) for row in session.execute(query) if row["verb"] in set(JobVerb)]


def _active(row: DictRow) -> ActiveJob:
    verb = JobVerb(row["verb"])
    kind = kind_of(verb, row["kind"], row["level"], whole_chain=row["whole_chain"])
    return ActiveJob(ClusterName(row["cluster"]), verb, kind)


def serve(session: Session, served: Sequence[ServedTick], now: datetime) -> set[Key]:
    """Keys of those that this call has served; of the others, somebody else was first."""
    if not served:
        return set()
    moved = _keys(session, _MOVE, [_move(one) for one in served])
    ours = [one for one in served if one.before.key in moved and one.tick is not None]
    if not ours:
        return set()
    rows = [(one.before.cluster, one.before.kind.value, one.due, one.passed) for one in ours]
    found = session.execute(_TICKS, [now, *_columns(rows)])
    new = {_key_of(row) for row in found}
    _request(session, [one for one in ours if one.before.key in new and one.job], now)
    return new


def newest_backups(session: Session, clusters: Iterable[ClusterName]) -> list[NewestBackups]:
    return [
        NewestBackups(ClusterName(row["cluster"]), row["label"], row["digest"],
                      row["verified_label"])
        for row in session.execute(_NEWEST, [list(clusters)])
    ]  # fmt: skip


def _request(session: Session, served: Sequence[ServedTick], now: datetime) -> None:
    jobs = [one.job for one in served if one.job is not None]
    if not jobs:
        return
    progress = Jsonb(_PROGRESS.dump_python(JobProgress(), mode="json"))
    rows = [
        (job.job_id, job.cluster, job.verb.value, Jsonb(job.model_dump(mode="json")))
        for job in jobs
    ]
    session.execute(_JOBS, [JobState.REQUESTED.value, progress, now, now, *_columns(rows)])
    ticks = [
        (one.before.cluster, one.before.kind.value, one.due, one.job.job_id)
        for one in served
        if one.job is not None
    ]
    session.execute(_TICK_JOBS, _columns(ticks))


def _move(one: ServedTick) -> tuple[object, ...]:
    before, after = one.before, one.after
    where = (before.cluster, before.kind.value, before.cron, before.delay)
    return (*where, before.next_at, before.served, after.next_at, after.served, after.skipped)


def _keys(session: Session, query: str, rows: Iterable[tuple[object, ...]]) -> set[Key]:
    return {_key_of(row) for row in session.execute(query, _columns(rows))}


def _key_of(row: DictRow) -> Key:
    return ClusterName(row["cluster"]), ScheduleKind(row["kind"])


def _columns(rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _row(one: AgendaEntry) -> tuple[object, ...]:
    where = (one.cluster, one.kind.value, one.cron, one.delay)
    return (*where, one.next_at, one.served, one.skipped)


def _key(key: Key) -> tuple[object, ...]:
    return key[0], key[1].value


def _is_known(row: DictRow) -> bool:
    """A kind of another release is its own business."""
    return row["kind"] in _KINDS


def _entry(row: DictRow) -> AgendaEntry:
    return AgendaEntry(
        cluster=ClusterName(row["cluster"]),
        kind=ScheduleKind(row["kind"]),
        cron=row["cron"],
        delay=row["delay"],
        next_at=row["next_at"],
        served=row["served"],
        skipped=row["skipped"],
    )
