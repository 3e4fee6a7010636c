"""Documents that earlier releases wrote still read; large numbers survive canonical JSON."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.drill import DrillVerdict
from shared.repository.documents import BackupDocument, DrillReport
from shared.repository.layout import BackupRef
from tests.harness.signed_repository import Committed, backup_document, drill_report

NEW_IN_A_REPORT = {
    "target",
    "timeline",
    "reached_lsn",
    "reached_time",
    "replayed_bytes",
    "wal_segments",
    "wal_waited_ms",
    "rpo_ms",
}


def without(document: dict[str, Any], names: set[str]) -> str:
    assert names <= document.keys()
    return json.dumps({name: value for name, value in document.items() if name not in names})


def test_a_transaction_number_is_a_decimal_string_whatever_its_epoch() -> None:
    document = backup_document("demo").model_copy(update={"next_xid": 2**62 + 1})
    written = document.model_dump(mode="json")
    assert written["next_xid"] == str(2**62 + 1)
    assert BackupDocument.model_validate_json(json.dumps(written)) == document


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "0x10", "", 1.5, True, "1" * 20])
def test_what_is_no_transaction_number_is_refused(number: object) -> None:
    written = backup_document("demo").model_dump(mode="json")
    with pytest.raises(ValidationError):
        BackupDocument.model_validate({**written, "next_xid": number})


def test_documents_from_before_recovery_to_an_instant_still_read() -> None:
    document = backup_document("demo")
    old = without(document.model_dump(mode="json"), {"next_xid"})
    assert BackupDocument.model_validate_json(old) == document
    backup = Committed(BackupRef(ClusterName("demo"), BackupLabel.parse(document.label)), "0" * 64)
    report = drill_report(backup, "d1", DrillVerdict.PROVEN)
    old = without(report.model_dump(mode="json"), NEW_IN_A_REPORT)
    assert DrillReport.model_validate_json(old) == report
