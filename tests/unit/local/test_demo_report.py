"""The demo's verdict: both drills proven, the catalogue agrees, and every lost row is back."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from local.demo_guard import Caught, Rehearsal
from local.demo_printed import print_report
from local.demo_report import summarise
from local.demo_rescue import BEFORE, Rescue
from local.demo_verdict import Played
from local.document_database.mistake import Mistake, TableContent
from shared.domain.drill import DrillVerdict
from shared.repository.documents import BackupDocument, BackupLink, DrillReport, FullInstead
from tests.harness.signed_repository import backup_document

AT = datetime(2026, 11, 22, 14, 4, tzinfo=UTC)
CHAIN = tuple(f"20261122T1400{n:02}Z-{kind}-k3x7" for n, kind in enumerate("FIII"))
LOST = TableContent(4000, "ab" * 32)


def drill(verdict: DrillVerdict = DrillVerdict.PROVEN, **facts: Any) -> DrillReport:
    return DrillReport(
        **{
            "id": "d",
            "cluster": "main",
            "label": CHAIN[-1],
            "document_digest": "00" * 32,
            "created_at": AT,
            "verdict": verdict,
            "reason": "6 checks passed",
            "phases_ms": {"plan": 100, "fetch_apply": 2000, "replay": 400},
            "rto_ms": 2500,
            "restored_bytes": 1,
            "restored_files": 1,
            "postgres": "17.10",
            "checks": (),
            "tool": "pgkeep",
            **facts,
        }
    )


def chain(*, size: int = 400) -> list[BackupDocument]:
    """A full of `size` bytes, and three incrementals of a hundredth of it, one after the other."""
    documents = list[BackupDocument]()
    for depth, label in enumerate(CHAIN):
        parent = BackupLink(label=CHAIN[depth - 1], digest="00" * 32) if depth else None
        stored = size // 100 if depth else size
        changes: dict[str, Any] = {"label": label, "parent": parent, "depth": depth, "objects": ()}
        [volume] = backup_document("main").volumes
        volume = volume.model_copy(update={"stored_size": stored})
        documents.append(backup_document("main", volumes=(volume,), **changes))
    return documents


def played(**changes: Any) -> Played:
    rescue = Rescue(Mistake(LOST, AT), AT - BEFORE, LOST, 3.2, {"plan": 100, "replay": 400})
    latest = drill(target="latest", rpo_ms=900, wal_segments=3, wal_waited_ms=10)
    story = {
        "backups": chain(),
        "catalogued": {CHAIN[-1]: {"proven": True}},
        "drills": [drill(), latest],
        "rescue": rescue,
        "caught": Caught("rule save-money would delete", "Change the rule", CHAIN[0], 2.0, 3.0),
        "rehearsal": Rehearsal(AT, CHAIN[:1], 3, 400, None, ("young",)),
    }
    return Played(**{**story, **changes})


def test_a_story_that_went_well_is_proven_with_the_times_of_its_last_drill() -> None:
    report = summarise(played(), 42.0)
    assert (report.verdict, report.rto_s, report.rpo_s) == ("proven", 2.5, 0.9)
    assert report.recovery is not None
    assert report.recovery.equal
    assert report.recovery.emptied_at - report.recovery.target == timedelta(seconds=1)
    assert report.drills[1].wal_waited_s == 0.01


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rescue": None}, "did not come to"),
        ({"caught": None}, "did not come to"),
        ({"rehearsal": None}, "did not come to"),
        ({"drills": [drill()]}, "did not come to"),
        ({"catalogued": {}}, "not catalogued"),
        ({"catalogued": {CHAIN[0]: {"proven": True}}}, "not catalogued"),
        ({"catalogued": {CHAIN[-1]: {"proven": False}}}, "not catalogued"),
        ({"drills": [drill(), drill(DrillVerdict.FAILED, reason="torn")]}, "failed: torn"),
        ({"drills": [], "rescue": None, "reason": "no disk"}, "no disk"),
    ],
)
def test_anything_less_is_not_proven_and_says_why(changes: dict[str, Any], words: str) -> None:
    assert words in summarise(played(**changes), 42.0).verdict


def test_a_full_in_the_place_of_an_incremental_proves_no_chain() -> None:
    full, *incrementals = chain()
    instead = FullInstead(code="summaries-missing", reason="summarize_wal is off")
    other = full.model_copy(update={"instead_of_incremental": instead})
    assert "summarize_wal is off" in summarise(played(backups=[full, other]), 42.0).verdict
    unrelated = [full, *incrementals[1:]]
    assert "does not build on" in summarise(played(backups=unrelated), 42.0).verdict
    assert "only 3 backups" in summarise(played(backups=[full, *incrementals[:2]]), 42.0).verdict


@pytest.mark.parametrize("found", [TableContent(3999, LOST.sha256), TableContent(4000, "cd" * 32)])
def test_one_row_less_or_another_row_is_not_recovered(found: TableContent) -> None:
    rescue = Rescue(Mistake(LOST, AT), AT - BEFORE, found, 3.2, {})
    assert summarise(played(rescue=rescue), 42.0).verdict.startswith("not recovered")


def test_people_read_rows_phases_and_both_objectives() -> None:
    screen = StringIO()
    print_report(Console(file=screen, width=120), summarise(played(), 42.0))
    for words in (
        "4000, 4000",
        "equal (SHA-256",
        "Drill to the latest",
        "save-money",
        "as if it were 2026-11-22",
        "replay",
        *CHAIN,
        "1.0%",
        "proven  RTO 2.5 s  RPO 0.9 s",
    ):
        assert words in screen.getvalue()
