"""SQL of the port RestoreRequests; each function runs inside the session's transaction."""

from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow

from shared.catalogue import job_ledger
from shared.catalogue.postgres_session import Session
from shared.catalogue.restore_port import RestoreNotFound
from shared.domain.cluster import ClusterName
from shared.domain.restore_request import (
    Decision,
    Person,
    RestoreRequest,
    RestoreState,
    RestoreVerdict,
)
from shared.errors import RequestConflict
from shared.jobs.messages import RestoreJob

_ASK = """
    INSERT INTO restore_request
        (id, cluster, target, label, goal, requested_by, requested_by_name, requested_at, lapses_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_DECIDE = """
    UPDATE restore_request
    SET decision = %s, decided_by = %s, decided_by_name = %s, decided_at = %s, reason = %s
    WHERE id = %s
"""
_LIST = """
    SELECT * FROM restore_request
    WHERE (cluster = %(cluster)s OR %(cluster)s::text IS NULL)
      AND (%(decision)s::text IS NULL OR %(decision)s =
           coalesce(decision, CASE WHEN lapses_at <= %(now)s THEN 'lapse' ELSE '' END))
      AND (%(before)s::uuid IS NULL OR (requested_at, id) <
           (SELECT requested_at, id FROM restore_request WHERE id = %(before)s))
    ORDER BY requested_at DESC, id DESC
    LIMIT %(limit)s
"""
_OVERDUE = """
    SELECT * FROM restore_request WHERE decision IS NULL AND lapses_at <= %s ORDER BY lapses_at
"""
# How a state reads in the column `decision`.
_DECISIONS = {RestoreState.REQUESTED: "", **{one.state: one.value for one in Decision}}


def ask(session: Session, request: RestoreRequest) -> RestoreRequest:
    person = request.requested_by
    asked = (request.id, request.cluster, request.target, request.label, request.to)
    session.execute(_ASK, [*asked, person.id, person.name, request.requested_at, request.lapses_at])
    known = one(session, request.id)
    if not known.asks_the_same(request):
        raise RequestConflict(f"restore {request.id} was made by another request")
    return known


def decide(
    session: Session, request_id: UUID, verdict: RestoreVerdict, traceparent: str | None
) -> RestoreRequest:
    """Who comes second waits for the row, and then sees the first one's verdict."""
    known = _locked(session, request_id)
    decided = known.decided(verdict)
    if decided is known:
        return known
    person = verdict.by
    values = [verdict.decision.value, person.id, person.name, verdict.at, verdict.reason]
    session.execute(_DECIDE, [*values, request_id])
    if verdict.decision is Decision.APPROVE:
        job_ledger.request(session, _job(decided, verdict, traceparent), verdict.at)
    return decided


def one(session: Session, request_id: UUID) -> RestoreRequest:
    query = "SELECT * FROM restore_request WHERE id = %s"
    return _request(session.execute(query, [request_id]).fetchone(), request_id)


def listed(
    session: Session,
    cluster: ClusterName | None,
    state: RestoreState | None,
    now: datetime,
    limit: int,
    before: UUID | None,
) -> list[RestoreRequest]:
    values = {
        "cluster": cluster,
        "decision": None if state is None else _DECISIONS[state],
        "now": now,
        "limit": limit,
        "before": before,
    }
    return [_request(row, row["id"]) for row in session.execute(_LIST, values)]


def overdue(session: Session, now: datetime) -> list[RestoreRequest]:
    return [_request(row, row["id"]) for row in session.execute(_OVERDUE, [now])]


def _locked(session: Session, request_id: UUID) -> RestoreRequest:
    query = "SELECT * FROM restore_request WHERE id = %s FOR UPDATE"
    return _request(session.execute(query, [request_id]).fetchone(), request_id)


def _job(request: RestoreRequest, verdict: RestoreVerdict, traceparent: str | None) -> RestoreJob:
    return RestoreJob(
        traceparent=traceparent,
        job_id=request.id,
        cluster=request.cluster,
        target=request.target,
        label=request.label,
        to=request.to,
        requested_by=request.requested_by.id,
        approved_by=verdict.by.id,
    )


def _request(row: DictRow | None, request_id: UUID) -> RestoreRequest:
    if row is None:
        raise RestoreNotFound(f"there is no restore {request_id}")
    return RestoreRequest(
        id=row["id"],
        cluster=ClusterName(row["cluster"]),
        target=row["target"],
        label=row["label"],
        to=row["goal"],
        requested_by=Person(row["requested_by"], row["requested_by_name"]),
        requested_at=row["requested_at"],
        lapses_at=row["lapses_at"],
        verdict=_verdict(row),
    )


def _verdict(row: DictRow) -> RestoreVerdict | None:
    if row["decision"] is None:
        return None
    person = Person(row["decided_by"], row["decided_by_name"])
    return RestoreVerdict(Decision(row["decision"]), person, row["decided_at"], row["reason"])
