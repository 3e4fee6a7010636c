"""SQL of the port FindingLedger; each function runs inside the session's transaction."""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from shared.catalogue.ports import RecordedFinding
from shared.catalogue.postgres_session import Session
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import Finding, FindingChanges, fold_findings

_OPEN = "SELECT * FROM finding WHERE cluster = %s AND closed_at IS NULL ORDER BY number FOR UPDATE"
_INSERT = """
    INSERT INTO finding (cluster, code, object, since, fact, evidence, opened_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
_SAY = """
    UPDATE finding SET fact = %s, evidence = %s
    WHERE cluster = %s AND (code, object) = (%s, %s) AND closed_at IS NULL
"""
_CLOSE = """
    UPDATE finding SET closed_at = %s
    WHERE cluster = %s AND (code, object) = (%s, %s) AND closed_at IS NULL
"""
_SEEN = """
    SELECT * FROM finding
    WHERE (%(cluster)s::text IS NULL OR cluster = %(cluster)s)
      AND (closed_at IS NULL OR closed_at >= %(closed_since)s)
    ORDER BY opened_at DESC, number DESC
    LIMIT %(limit)s
"""
_KNOWN_CODES = frozenset(code.value for code in FindingCode)


def settle(
    session: Session,
    cluster: ClusterName,
    found: Iterable[Finding],
    now: datetime,
    *,
    close: Collection[FindingScope],
) -> FindingChanges:
    """Whoever settles findings of one cluster waits for the other to be done."""
    session.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"finding {cluster}"])
    recorded = list(_recorded(session.execute(_OPEN, [cluster])))
    changes = fold_findings([one.finding for one in recorded], found)
    for one in changes.opened:
        evidence = Jsonb(dict(one.evidence))
        row = [cluster, one.code.value, one.object, one.since, one.fact, evidence, now]
        session.execute(_INSERT, row)
    for one in changes.kept:
        session.execute(_SAY, [one.fact, Jsonb(dict(one.evidence)), cluster, *one.key])
    old = {one.finding.key for one in recorded if one.opened_at <= now}
    closed = tuple(one for one in changes.closed if one.scope in close and one.key in old)
    for one in closed:
        session.execute(_CLOSE, [now, cluster, *one.key])
    return FindingChanges(changes.opened, changes.kept, closed)


def findings(
    session: Session, cluster: ClusterName | None, closed_since: datetime | None, limit: int | None
) -> list[RecordedFinding]:
    values = {"cluster": cluster, "closed_since": closed_since, "limit": limit}
    return list(_recorded(session.execute(_SEEN, values)))


def _recorded(rows: Iterable[DictRow]) -> Iterator[RecordedFinding]:
    """Without those of codes that only another release knows: they are its own to close."""
    for row in rows:
        if row["code"] in _KNOWN_CODES:
            code = FindingCode(row["code"])
            finding = Finding(code, row["object"], row["since"], row["fact"], row["evidence"])
            cluster = ClusterName(row["cluster"])
            yield RecordedFinding(cluster, finding, row["opened_at"], row["closed_at"])
