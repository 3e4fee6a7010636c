"""Rows follow from documents alone, and fill their tables completely."""

from datetime import timedelta
from uuid import UUID

import pytest

from shared.catalogue.fact_tables import FACT_TABLES, row_of
from shared.catalogue.ports import Fact
from shared.domain.drill import DrillVerdict
from shared.repository.backups import StoredBackup
from shared.repository.blob_store import BlobName
from shared.repository.documents import ClusterDocument, SealedObject, VerificationReport, Volume
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.header_verification import HeaderVerification, Surroundings, judge
from shared.repository.layout import backup_of_document
from shared.repository.reports import StoredReport
from tests.harness.signed_repository import (
    CLUSTER_UUID,
    NOON,
    SYSTEM,
    Committed,
    backup_document,
    drill_report,
)

CLUSTER = ClusterDocument(
    cluster="demo", cluster_uuid=CLUSTER_UUID, system_identifier=SYSTEM, created_at=NOON
)
DOCUMENT = backup_document("demo")
REF = backup_of_document(BlobName("full", f"demo/{DOCUMENT.label}/backup.json"))
BACKUP = StoredBackup(REF, DOCUMENT, "d" * 64)
PARTS: tuple[Volume | SealedObject, ...] = (*DOCUMENT.volumes, *DOCUMENT.objects)
SIZES = {REF.blob(part.name): part.stored_size for part in PARTS}


def facts() -> list[Fact]:
    report = drill_report(Committed(REF, "d" * 64), "d1", DrillVerdict.PROVEN)
    verification = VerificationReport(
        id="v1",
        cluster="demo",
        label=DOCUMENT.label,
        document_digest="d" * 64,
        deep=True,
        passed=True,
        created_at=NOON + timedelta(hours=1),
        total_ms=1,
        segments=1,
        files=1,
        stored_bytes=1,
        plain_bytes=1,
    )
    header = HeaderVerification(BACKUP, CLUSTER, ())
    expiry = ExpiryReport(
        id=UUID(int=1),
        cluster="demo",
        created_at=NOON,
        plan="a" * 64,
        staying_count=0,
        freed_bytes=0,
        tool="pgkeep test",
    )
    reports = (verification, report, expiry)
    return [CLUSTER, header, *(StoredReport(one, "e" * 64) for one in reports)]


def test_each_kind_of_fact_has_a_table_of_its_own() -> None:
    assert [row_of(fact).table for fact in facts()] == list(FACT_TABLES)


@pytest.mark.parametrize("fact", facts(), ids=lambda fact: type(fact).__name__)
def test_a_row_fills_exactly_the_columns_of_its_table(fact: Fact) -> None:
    row = row_of(fact)
    assert set(row.values) == set(row.table.columns)
    assert "digest" in row.table.columns
    assert None not in row.key


def test_judging_without_any_blob_finds_every_part_and_key_record_missing() -> None:
    nothing = Surroundings(lambda _: None, lambda _: None)
    findings = judge(BACKUP, CLUSTER, nothing).findings
    assert [item.code for item in findings] == ["blob-not-found"] * (len(SIZES) + 1)


def test_judging_with_every_blob_in_place_finds_nothing() -> None:
    whole = Surroundings(lambda name: SIZES.get(name, 1), lambda _: None)
    assert judge(BACKUP, CLUSTER, whole).passed
