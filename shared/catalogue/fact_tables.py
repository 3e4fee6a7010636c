"""Facts as rows: which table a signed document fills, with what, and what makes two rows equal."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from psycopg import sql
from psycopg.types.json import Jsonb

from shared.catalogue.ports import Fact
from shared.errors import BackupConflict, ClusterConflict, Conflict, ReportConflict
from shared.repository.documents import ClusterDocument, DrillReport, VerificationReport
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.header_verification import HeaderVerification
from shared.repository.reports import AnyReport, StoredReport


@dataclass(frozen=True, slots=True)
class FactTable:
    """`columns` hold content, `recorded_at` beside them is operational.

    Every fact table has a column `digest`: two rows of one key with one digest are one fact.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    conflict: type[Conflict]


@dataclass(frozen=True, slots=True)
class FactRow:
    table: FactTable
    values: dict[str, object]

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(self.values[column] for column in self.table.key)


CLUSTER = FactTable(
    "cluster",
    ("name",),
    ("name", "digest", "cluster_uuid", "system_identifier", "created_at"),
    ClusterConflict,
)
BACKUP = FactTable(
    "backup",
    ("cluster", "label"),
    (
        "cluster", "label", "digest", "kind", "parent_label", "previous_label", "counter",
        "committed_at", "started_at", "finished_at", "source", "postgres_version", "timeline",
        "start_lsn", "stop_lsn", "wal_included", "suspect", "stored_bytes", "plain_bytes",
        "findings", "depth", "full_instead",
    ),
    BackupConflict,
)  # fmt: skip
VERIFICATION = FactTable(
    "verification",
    ("cluster", "id"),
    ("cluster", "id", "digest", "label", "document_digest", "created_at", "deep", "passed",
     "report"),
    ReportConflict,
)  # fmt: skip
DRILL = FactTable(
    "drill",
    ("cluster", "id"),
    ("cluster", "id", "digest", "label", "document_digest", "created_at", "verdict", "rto_ms",
     "report"),
    ReportConflict,
)  # fmt: skip
EXPIRY = FactTable(
    "expiry",
    ("cluster", "id"),
    ("cluster", "id", "digest", "created_at", "refused", "report"),
    ReportConflict,
)
FACT_TABLES = (CLUSTER, BACKUP, VERIFICATION, DRILL, EXPIRY)


def row_of(fact: Fact) -> FactRow:
    match fact:
        case ClusterDocument():
            return FactRow(CLUSTER, _cluster(fact))
        case HeaderVerification():
            return FactRow(BACKUP, _backup(fact))
        case StoredReport():
            return _report_row(fact.report, fact.digest)
        case _:
            assert_never(fact)


def _report_row(report: AnyReport, digest: str) -> FactRow:
    match report:
        case VerificationReport():
            return FactRow(VERIFICATION, _verification(report, digest))
        case DrillReport():
            return FactRow(DRILL, _drill(report, digest))
        case ExpiryReport():
            return FactRow(EXPIRY, _expiry(report, digest))
        case _:
            assert_never(report)


def insert(table: FactTable) -> sql.Composed:
    """Insert, unless the key is taken; gives a row when it did."""
    return sql.SQL("{} ON CONFLICT DO NOTHING RETURNING digest").format(_insert(table))


def upsert(table: FactTable) -> sql.Composed:
    """Insert, or give the row of this key our content; `recorded_at` stays."""
    changes = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column)) for column in table.columns
    )
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    return sql.SQL("{} ON CONFLICT ({}) DO UPDATE SET {}").format(_insert(table), key, changes)


def _insert(table: FactTable) -> sql.Composed:
    columns = (*table.columns, "recorded_at")
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(map(sql.Placeholder, columns)),
    )


def parameters(row: FactRow, now: datetime) -> dict[str, object]:
    return {**row.values, "recorded_at": now}


def _cluster(document: ClusterDocument) -> dict[str, object]:
    identity = f"{document.cluster_uuid}\n{document.system_identifier}"
    return {
        "name": document.cluster,
        "digest": hashlib.sha256(identity.encode()).hexdigest(),
        "cluster_uuid": document.cluster_uuid,
        "system_identifier": document.system_identifier,
        "created_at": document.created_at,
    }


def _backup(verification: HeaderVerification) -> dict[str, object]:
    document = verification.backup.document
    instead = document.instead_of_incremental
    return {
        "cluster": document.cluster,
        "label": document.label,
        "digest": verification.backup.digest,
        "kind": document.kind.value,
        "parent_label": document.parent.label if document.parent else None,
        "previous_label": document.previous.label if document.previous else None,
        "counter": document.counter,
        "committed_at": document.created_at,
        "started_at": document.started_at,
        "finished_at": document.finished_at,
        "source": document.source.value,
        "postgres_version": document.postgres.version_num,
        "timeline": document.timeline,
        "start_lsn": str(document.start_lsn),
        "stop_lsn": str(document.stop_lsn),
        "wal_included": document.wal_included,
        "suspect": document.suspect,
        "stored_bytes": document.stored_size,
        "plain_bytes": document.plain_size,
        "findings": Jsonb([finding.model_dump() for finding in verification.findings]),
        "depth": document.depth,
        "full_instead": Jsonb(instead.model_dump()) if instead else None,
    }


def _verification(report: VerificationReport, digest: str) -> dict[str, object]:
    return {**_report(report, digest), "deep": report.deep, "passed": report.passed}


def _drill(report: DrillReport, digest: str) -> dict[str, object]:
    return {
        **_report(report, digest),
        "verdict": report.verdict.value,
        "rto_ms": report.rto_ms,
    }


def _expiry(report: ExpiryReport, digest: str) -> dict[str, object]:
    return {
        "cluster": report.cluster,
        "id": str(report.id),
        "digest": digest,
        "created_at": report.created_at,
        "refused": report.refused,
        "report": Jsonb(report.model_dump(mode="json")),
    }


def _report(report: VerificationReport | DrillReport, digest: str) -> dict[str, object]:
    return {
        "cluster": report.cluster,
        "id": report.id,
        "digest": digest,
        "label": report.label,
        "document_digest": report.document_digest,
        "created_at": report.created_at,
        "report": Jsonb(report.model_dump(mode="json")),
    }
