"""SQL of the port RepositoryIndex; each function runs inside the session's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from psycopg import sql
from psycopg.rows import DictRow

from shared.catalogue.fact_tables import (
    FACT_TABLES,
    FactRow,
    FactTable,
    insert,
    parameters,
    row_of,
    upsert,
)
from shared.catalogue.ports import CataloguedBackup, Fact
from shared.catalogue.postgres_session import Session
from shared.domain.backup import BackupFacts, BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport, Finding, FullInstead
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.layout import BackupRef

_BACKUPS = """
    SELECT * FROM backup_facts
    WHERE (cluster = %(cluster)s OR %(cluster)s::text IS NULL)
      AND (label < %(before)s OR %(before)s::text IS NULL)
    ORDER BY label DESC, cluster
    LIMIT %(limit)s
"""
_WAL_STARTS = """
    SELECT report->'wal'->'before' AS starts FROM expiry
    WHERE cluster = %s AND jsonb_array_length(report->'wal'->'before') > 0
    ORDER BY created_at DESC, id
    LIMIT 1
"""
_NEVER_VERIFIED = """
    SELECT * FROM backup_facts
    WHERE verified_at IS NULL AND verification_failed_at IS NULL AND committed_at < %s
    ORDER BY label, cluster
"""
# What a run of `expire` has told of is gone by right. It did so after its successor had begun.
_LOST_PREDECESSORS = """
    SELECT cluster, label, previous_label FROM backup
    WHERE previous_label IS NOT NULL
      AND NOT EXISTS (
          SELECT FROM backup AS older
          WHERE older.cluster = backup.cluster AND older.label = backup.previous_label
      )
      AND NOT EXISTS (
          SELECT FROM expiry
          WHERE expiry.cluster = backup.cluster
            AND expiry.created_at > backup.started_at - interval '1 day'
            AND expiry.report -> 'went' @> jsonb_build_array(
                jsonb_build_object('label', backup.previous_label))
      )
    ORDER BY cluster, label
"""
_LOST_BACKUPS = """
    SELECT cluster, label FROM (
        SELECT cluster, label FROM verification WHERE created_at >= %(since)s
        UNION SELECT cluster, label FROM drill WHERE created_at >= %(since)s
    ) AS told
    WHERE NOT EXISTS (
        SELECT FROM backup WHERE backup.cluster = told.cluster AND backup.label = told.label
    )
    EXCEPT
    SELECT cluster, went ->> 'label'
    FROM expiry, jsonb_array_elements(report -> 'went') AS went
    WHERE created_at >= %(since)s
    ORDER BY cluster, label
"""


def record(session: Session, fact: Fact, now: datetime) -> bool:
    row = row_of(fact)
    if session.execute(insert(row.table), parameters(row, now)).fetchone() is not None:
        return True
    known = _digest(session, row)
    if known != row.values["digest"]:
        raise row.table.conflict(
            f"{row.table.name} {'/'.join(map(str, row.key))} is known with digest {known}, "
            f"not {row.values['digest']}"
        )
    return False


def _digest(session: Session, row: FactRow) -> object:
    query = sql.SQL("SELECT digest FROM {} WHERE {}").format(
        sql.Identifier(row.table.name), _key_of(row)
    )
    found = session.execute(query, row.values).fetchone()
    return found["digest"] if found else None


def replace(session: Session, facts: Iterable[Fact], now: datetime) -> None:
    rows = sorted((row_of(fact) for fact in facts), key=lambda row: row.table.name)
    by_table = {name: list(group) for name, group in groupby(rows, lambda row: row.table.name)}
    for table in FACT_TABLES:
        found = by_table.get(table.name, [])
        _forget_others(session, table, found, now)
        with session.cursor() as cursor:
            cursor.executemany(upsert(table), [parameters(row, now) for row in found])


def _forget_others(
    session: Session, table: FactTable, rows: Sequence[FactRow], now: datetime
) -> None:
    # A fact that arrived while the repository was being read is younger than `now`: it stays.
    query = sql.SQL(
        "DELETE FROM {} WHERE recorded_at < %s AND ({}) NOT IN (SELECT * FROM unnest({}))"
    ).format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(map(sql.Identifier, table.key)),
        sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in table.key),
    )
    keys = [[row.values[column] for row in rows] for column in table.key]
    session.execute(query, [now, *keys])


def backups(
    session: Session, cluster: ClusterName | None, limit: int, before: str | None
) -> list[CataloguedBackup]:
    found = session.execute(_BACKUPS, {"cluster": cluster, "limit": limit, "before": before})
    return [_backup(row) for row in found]


def backup(session: Session, ref: BackupRef) -> CataloguedBackup:
    query = "SELECT * FROM backup_facts WHERE cluster = %s AND label = %s"
    row = session.execute(query, [ref.cluster, ref.label.text]).fetchone()
    if row is None:
        raise BackupNotFound(f"cluster {ref.cluster} has no backup {ref.label}")
    return _backup(row)


def never_verified(session: Session, committed_before: datetime) -> list[CataloguedBackup]:
    return [_backup(row) for row in session.execute(_NEVER_VERIFIED, [committed_before])]


def known_blobs(session: Session) -> set[BlobName]:
    names = {_ref(row).document for row in session.execute("SELECT cluster, label FROM backup")}
    for row in session.execute("SELECT cluster, id FROM verification"):
        names.add(layout.verification_report(row["cluster"], row["id"]))
    for row in session.execute("SELECT cluster, id FROM drill"):
        names.add(layout.drill_report(row["cluster"], row["id"]))
    for row in session.execute("SELECT cluster, id FROM expiry"):
        names.add(layout.expiry_report(row["cluster"], row["id"]))
    return names


def drill_report(session: Session, cluster: ClusterName, report_id: str) -> DrillReport | None:
    query = "SELECT report FROM drill WHERE cluster = %s AND id = %s"
    row = session.execute(query, [cluster, report_id]).fetchone()
    return DrillReport.model_validate(row["report"]) if row else None


def forget(session: Session, backups: Mapping[BackupRef, str]) -> None:
    query = "DELETE FROM backup WHERE cluster = %s AND label = %s AND digest = %s"
    rows = [(ref.cluster, ref.label.text, digest) for ref, digest in backups.items()]
    with session.cursor() as cursor:
        cursor.executemany(query, rows)


def lost_predecessors(session: Session) -> list[tuple[BackupRef, BackupRef]]:
    return [
        (_ref(row), BackupRef(ClusterName(row["cluster"]), BackupLabel(row["previous_label"])))
        for row in session.execute(_LOST_PREDECESSORS)
    ]


def lost_backups(session: Session, told_since: datetime) -> list[BackupRef]:
    return [_ref(row) for row in session.execute(_LOST_BACKUPS, {"since": told_since})]


def differing_columns(session: Session, fact: Fact) -> list[str]:
    """None of a fact without a row: that it is not recorded is nothing that differs."""
    row = row_of(fact)
    # PostgreSQL compares, so that nothing differs by the way in which it is written.
    columns = sql.SQL(", ").join(
        sql.SQL("{0} IS DISTINCT FROM {1} AS {0}").format(
            sql.Identifier(column), sql.Placeholder(column)
        )
        for column in row.table.columns
    )
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        columns, sql.Identifier(row.table.name), _key_of(row)
    )
    found = session.execute(query, row.values).fetchone()
    return [column for column, differs in found.items() if differs] if found else []


def _key_of(row: FactRow) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder(column))
        for column in row.table.key
    )


def newest_expiry(session: Session, cluster: ClusterName) -> ExpiryReport | None:
    query = "SELECT report FROM expiry WHERE cluster = %s ORDER BY created_at DESC, id LIMIT 1"
    row = session.execute(query, [cluster]).fetchone()
    return ExpiryReport.model_validate(row["report"]) if row else None


def wal_starts(session: Session, cluster: ClusterName) -> dict[int, Lsn]:
    row = session.execute(_WAL_STARTS, [cluster]).fetchone()
    return {one["timeline"]: Lsn.parse(one["lsn"]) for one in row["starts"]} if row else {}


def content(session: Session) -> dict[str, list[Mapping[str, object]]]:
    found = {}
    for table in FACT_TABLES:
        query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)),
            sql.Identifier(table.name),
            sql.SQL(", ").join(map(sql.Identifier, table.key)),
        )
        found[table.name] = list[Mapping[str, object]](session.execute(query))
    return found


def _ref(row: DictRow) -> BackupRef:
    return BackupRef(ClusterName(row["cluster"]), BackupLabel(row["label"]))


def _backup(row: DictRow) -> CataloguedBackup:
    facts = BackupFacts(
        committed_at=row["committed_at"],
        verified_at=row["verified_at"],
        verification_failed_at=row["verification_failed_at"],
        proven_at=row["proven_at"],
        drill_failed_at=row["drill_failed_at"],
        suspect=row["suspect"],
        ancestor_failed_at=row["ancestor_failed_at"],
        geo_safe_at=row["geo_safe_at"],
    )
    instead = row["full_instead"]
    return CataloguedBackup(
        ref=_ref(row),
        digest=row["digest"],
        facts=facts,
        stored_bytes=row["stored_bytes"],
        plain_bytes=row["plain_bytes"],
        findings=tuple(Finding.model_validate(finding) for finding in row["findings"]),
        parent=row["parent_label"],
        depth=row["depth"],
        instead_of_incremental=instead and FullInstead.model_validate(instead),
    )
