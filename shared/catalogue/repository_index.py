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
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport, Finding, FullInstead
from shared.repository.layout import BackupRef

_BACKUPS = """
    SELECT * FROM backup_facts
    WHERE (cluster = %(cluster)s OR %(cluster)s::text IS NULL)
      AND (label < %(before)s OR %(before)s::text IS NULL)
    ORDER BY label DESC, cluster
    LIMIT %(limit)s
"""
_NEVER_VERIFIED = """
    SELECT * FROM backup_facts
    WHERE verified_at IS NULL AND verification_failed_at IS NULL AND committed_at < %s
    ORDER BY label, cluster
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
    condition = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder(column))
        for column in row.table.key
    )
    query = sql.SQL("SELECT digest FROM {} WHERE {}").format(
        sql.Identifier(row.table.name), condition
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
    return names


def drill_report(session: Session, cluster: ClusterName, report_id: str) -> DrillReport | None:
    query = "SELECT report FROM drill WHERE cluster = %s AND id = %s"
    row = session.execute(query, [cluster, report_id]).fetchone()
    return DrillReport.model_validate(row["report"]) if row else None


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
