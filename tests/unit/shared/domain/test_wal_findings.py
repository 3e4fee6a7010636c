"""Findings: which there are, and that each is told once when it opens and once when it closes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding, fold_findings
from shared.domain.freshness import SlotState, WalFreshness, WalGap
from shared.domain.lsn import Lsn
from shared.domain.wal_findings import (
    CONFLICT_STANDS,
    GAP_SETTLES,
    SeenConflict,
    findings,
    troubles,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BEHIND = timedelta(seconds=900)
WELL = WalFreshness(
    cluster="demo",
    at=NOON,
    watched_since=NOON - timedelta(days=3),
    timeline=1,
    through_lsn=Lsn(3 << 24),
    protected_at=NOON - 60 * SECOND,
    server_lsn=Lsn((3 << 24) + 5),
    reported_at=NOON - 60 * SECOND,
    slot=SlotState("pgkeep", active=True, wal_status="reserved", keep_bytes=1 << 30),
)
GAP = WalGap(1, Lsn(1 << 24), Lsn(2 << 24), NOON - GAP_SETTLES)
CONFLICT = SeenConflict(NOON, "agent", "db2/7", "0000000100000000000000A7")


def codes(seen: WalFreshness, *conflicts: SeenConflict) -> list[str]:
    return [one.code.value for one in findings(seen, conflicts, BEHIND)]


def test_a_cluster_that_is_well_has_none() -> None:
    assert codes(WELL) == []


@pytest.mark.parametrize(
    ("lag", "found"), [(900 * SECOND, []), (901 * SECOND, ["wal-behind"])], ids=str
)
def test_it_is_behind_after_the_set_time_and_not_at_it(lag: timedelta, found: list[str]) -> None:
    assert codes(replace(WELL, protected_at=NOON - lag)) == found


def test_behind_says_since_when_and_where_both_sides_are() -> None:
    [one] = findings(replace(WELL, protected_at=NOON - 2 * BEHIND), (), BEHIND)
    assert one.since == NOON - 2 * BEHIND
    assert one.fact == (
        "commits since 2026-11-22 11:30:00Z are not protected: 1800 s, more than 900 s; "
        "the archive reaches 0/3000000, the server is at 0/3000005"
    )
    assert one.action.endswith("docs/runbooks/wal-behind.md.")


def test_of_a_cluster_of_which_nothing_was_protected_the_first_look_counts() -> None:
    never = replace(WELL, protected_at=None, through_lsn=None)
    assert codes(never) == ["wal-behind"]
    assert codes(replace(never, watched_since=NOON - BEHIND)) == []


def test_a_cluster_without_any_wal_archiving_is_not_behind() -> None:
    unused = WalFreshness(cluster="demo", at=NOON, watched_since=NOON - timedelta(days=3))
    assert codes(unused) == []
    assert codes(replace(unused, protected_at=NOON - timedelta(days=2))) == []


def test_writers_that_fell_silent_are_told_though_everything_was_protected() -> None:
    silent = replace(WELL, reported_at=NOON - BEHIND - SECOND)
    assert codes(silent) == ["wal-unreported"]
    assert codes(replace(silent, reported_at=None, slot=None)) == []


def test_a_gap_is_told_once_it_has_settled_or_at_once_when_a_writer_reports_it() -> None:
    fresh = replace(GAP, since=NOON - GAP_SETTLES + SECOND)
    assert codes(replace(WELL, gaps=(fresh,))) == []
    assert codes(replace(WELL, gaps=(replace(fresh, reported=True),))) == ["wal-gap"]
    [one] = findings(replace(WELL, gaps=(GAP,)), (), BEHIND)
    assert (one.object, one.since) == ("timeline 1 before 0/2000000", GAP.since)
    assert one.fact == "the wal of timeline 1 from 0/1000000 to 0/2000000 is not in the archive"


def test_many_conflicts_are_one_finding_until_nobody_tries_any_more() -> None:
    older = replace(CONFLICT, at=NOON - CONFLICT_STANDS, name="0000000100000000000000A6")
    [one] = findings(WELL, [older, CONFLICT], BEHIND)
    assert (one.code, one.since) == (FindingCode.DUPLICATE_WRITER, older.at)
    assert "agent on db2/7 offered another 0000000100000000000000A7" in one.fact
    assert codes(WELL, replace(older, at=older.at - SECOND)) == []


@pytest.mark.parametrize(
    ("slot", "found"),
    [
        (SlotState("pgkeep", True, "lost", 9, 1 << 30), ["wal-slot-lost"]),
        (SlotState("pgkeep", True, "reserved", 9, None), ["wal-slot-unlimited"]),
        (SlotState("pgkeep", False, "extended", 9, 1 << 30), []),
        (SlotState("pgkeep", True, None, None, 1 << 30), []),
    ],
)
def test_a_slot_that_lost_wal_or_has_no_limit_is_told(slot: SlotState, found: list[str]) -> None:
    assert codes(replace(WELL, slot=slot)) == found


def test_only_gaps_and_conflicts_are_told_between_two_looks() -> None:
    bad = replace(WELL, protected_at=NOON - 2 * BEHIND, gaps=(GAP,))
    assert [one.code for one in troubles(bad, [CONFLICT])] == [
        FindingCode.GAP,
        FindingCode.DUPLICATE_WRITER,
    ]


def test_every_code_has_a_sentence_that_says_what_to_do() -> None:
    for code in FindingCode:
        action = Finding(code, "x", NOON, "a fact").action
        assert action[0].isupper()
        assert action.endswith(".")


FOUND = st.lists(
    st.builds(
        Finding,
        st.sampled_from(FindingCode),
        st.sampled_from(["a", "b"]),
        st.sampled_from([NOON, NOON + SECOND]),
        st.sampled_from(["one fact", "another"]),
    ),
    unique_by=lambda finding: finding.key,
)


@given(st.lists(FOUND, min_size=1, max_size=6))
def test_each_finding_opens_once_and_closes_once_and_keeps_its_first_since(
    looks: list[list[Finding]],
) -> None:
    known: dict[tuple[str, str], Finding] = {}
    for found in looks:
        changes = fold_findings(known.values(), found)
        opened, kept, closed = (
            {one.key: one for one in part}
            for part in (changes.opened, changes.kept, changes.closed)
        )
        assert opened.keys() | kept.keys() == {one.key for one in found}
        assert opened.keys() & known.keys() == set()
        assert closed.keys() | kept.keys() == known.keys()
        assert {key: one.since for key, one in kept.items()} == {
            key: known[key].since for key in kept
        }
        assert {one.key: one.fact for one in found} == {
            key: one.fact for key, one in (opened | kept).items()
        }
        known = opened | kept
