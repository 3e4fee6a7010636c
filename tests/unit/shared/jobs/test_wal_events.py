"""Reports of WAL writers are read by their models alone; each says what the domain works with."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.freshness import SlotState, WalGap, WriterReport
from shared.domain.lsn import Lsn
from shared.domain.wal_findings import SeenConflict
from shared.errors import MessageInvalid
from shared.jobs.messages import MAX_MESSAGE, QUEUES, WAL_EVENT_QUEUE
from shared.jobs.wal_events import (
    SlotStatus,
    WalConflictSeen,
    WalEvent,
    WalGapSeen,
    WalProgress,
    parse_wal_event,
)

ROOT = Path(__file__).parents[4]
EVENTS = ROOT / "tests" / "events"
AT = datetime(2026, 11, 22, 3, tzinfo=UTC)
PROGRESS = WalProgress(
    cluster="demo",
    at=AT,
    writer="receive",
    host="db1/42",
    timeline=2,
    server_lsn=Lsn.parse("1/A7001000"),
    archived_lsn=Lsn.parse("1/A7000000"),
    archived_commit=AT,
    unarchived_bytes=4096,
    slot=SlotStatus(name="pgkeep", active=True, wal_status="reserved", retained_bytes=9),
)
CONFLICT = WalConflictSeen(
    cluster="demo",
    at=AT,
    writer="agent",
    host="db2/7",
    name="0000000100000001000000A7",
    stored_sha256=None,
    offered_sha256="5d" * 32,
)
GAP = WalGapSeen(
    cluster="demo",
    at=AT,
    writer="receive",
    host="db1/42",
    timeline=2,
    from_lsn=Lsn.parse("1/A7000000"),
    to_lsn=Lsn.parse("1/A9000000"),
)


@pytest.mark.parametrize("event", [PROGRESS, CONFLICT, GAP], ids=lambda event: event.kind)
def test_an_event_is_read_back_as_it_was_sent(event: WalEvent) -> None:
    assert parse_wal_event(event.model_dump_json()) == event


def test_each_says_what_the_domain_works_with() -> None:
    slot = SlotState("pgkeep", active=True, wal_status="reserved", retained_bytes=9)
    assert PROGRESS.report() == WriterReport(
        "receive", "db1/42", AT, 2, Lsn.parse("1/A7001000"), 4096, slot
    )
    assert CONFLICT.conflict() == SeenConflict(AT, "agent", "db2/7", "0000000100000001000000A7")
    assert GAP.gap() == WalGap(
        2, Lsn.parse("1/A7000000"), Lsn.parse("1/A9000000"), AT, reported=True
    )


def test_the_least_that_a_writer_can_say_is_enough() -> None:
    least = PROGRESS.model_dump(include={"kind", "cluster", "writer", "host", "timeline"})
    event = parse_wal_event(json.dumps({**least, "at": "2026-11-22T03:00:00Z"}))
    assert isinstance(event, WalProgress)
    assert (event.server_lsn, event.slot, event.report().slot) == (None, None, None)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"kind": "other"}, "kind"),
        ({"version": 2}, "version"),
        ({"cluster": "../etc"}, "cluster"),
        ({"at": "2026-11-22T03:00:00"}, "at"),
        ({"writer": "somebody"}, "writer"),
        ({"host": "x" * 201}, "host"),
        ({"timeline": 0}, "timeline"),
        ({"timeline": 2**32}, "timeline"),
        ({"server_lsn": "1-A7"}, "server_lsn"),
        ({"unarchived_bytes": -1}, "unarchived_bytes"),
        ({"waiting_files": -1}, "waiting_files"),
        ({"slot": {"name": "x"}}, "slot"),
        ({"more": 1}, "more"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_its_name(members: dict[str, Any], named: str) -> None:
    text = json.dumps({**json.loads(PROGRESS.model_dump_json()), **members})
    with pytest.raises(MessageInvalid, match=named):
        parse_wal_event(text)


def test_a_message_beyond_the_queues_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MessageInvalid, match="longer than"):
        parse_wal_event("{" * (MAX_MESSAGE + 1))


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_an_event_or_a_refusal(text: str) -> None:
    with pytest.raises(MessageInvalid):
        parse_wal_event(text)


def test_the_queue_is_one_of_those_that_are_made() -> None:
    assert WAL_EVENT_QUEUE in QUEUES


@pytest.mark.parametrize("path", sorted(EVENTS.glob("wal-*.json")), ids=lambda path: path.stem)
def test_every_sample_is_read_as_what_its_name_says_and_quoted_in_the_reference(
    path: Path,
) -> None:
    reference = (ROOT / "docs" / "reference" / "messages.md").read_text()
    assert f"wal-{parse_wal_event(path.read_text()).kind}" == path.stem
    assert path.read_text().strip() in reference


def test_there_is_a_sample_of_each_kind() -> None:
    assert {path.stem for path in EVENTS.glob("wal-*.json")} == {
        "wal-progress",
        "wal-conflict",
        "wal-gap",
    }
