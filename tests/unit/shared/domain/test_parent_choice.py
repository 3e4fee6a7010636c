"""What an incremental backup builds on: the rules, and that they never choose what they refuse."""

from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.domain.parent_choice import (
    NoParent,
    ParentCandidate,
    ServerState,
    WalSummaries,
    choose_parent,
)

SUMMARIES = WalSummaries(enabled=True, ranges=[(Lsn(100), Lsn(200)), (Lsn(200), Lsn(900))])
SERVER = ServerState(
    system_identifier="7",
    major=17,
    timeline=1,
    block_size=8192,
    data_checksums=True,
    summaries=SUMMARIES,
)
GOOD = ParentCandidate(
    label="b",
    depth=0,
    timeline=1,
    start_lsn=Lsn(150),
    system_identifier="7",
    major=17,
    block_size=8192,
    data_checksums=True,
)


def chosen(
    *candidates: ParentCandidate,
    server: ServerState = SERVER,
    prefer: Literal["verified", "newest"] = "verified",
) -> str:
    """The label of the parent, or the code of the reason."""
    found = choose_parent(candidates, server, chain_limit=3, prefer=prefer)
    return found.code if isinstance(found, NoParent) else found.label


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"system_identifier": "8"}, "other-system"),
        ({"major": 18}, "other-system"),
        ({"chain_fault": "is broken"}, "chain-broken"),
        ({"suspect": True}, "parent-suspect"),
        ({"verified": False}, "verification-failed"),
        ({"timeline": 2}, "timeline-switched"),
        ({"data_checksums": False}, "checksums-changed"),
        ({"block_size": 4096}, "checksums-changed"),
        ({"depth": 3}, "chain-limit"),
        ({"start_lsn": Lsn(99)}, "wal-summaries-missing"),
    ],
)
def test_each_reason_speaks_against_a_parent_and_an_older_one_is_taken(
    changes: dict[str, Any], code: str
) -> None:
    bad = replace(GOOD, label="bad", **changes)
    assert chosen(bad) == code
    assert chosen(bad, GOOD) == "b"


def test_without_incrementals_or_summaries_or_backups_there_is_no_parent() -> None:
    assert chosen(GOOD, server=replace(SERVER, major=16)) == "version-without-incrementals"
    off = replace(SERVER, summaries=WalSummaries(enabled=False))
    assert chosen(GOOD, server=off) == "wal-summaries-off"
    assert chosen() == "no-backup"


def test_a_verified_parent_is_preferred_to_a_newer_one_if_the_settings_want_it() -> None:
    newer, older = replace(GOOD, label="newer"), replace(GOOD, label="older", verified=True)
    assert chosen(newer, older) == "older"
    assert chosen(newer, older, prefer="newest") == "newer"
    assert chosen(newer, GOOD) == "newer"


def test_the_reasons_of_all_are_told_and_many_are_counted() -> None:
    bad = [replace(GOOD, label=f"bad{n}", suspect=True) for n in range(6)]
    found = choose_parent(bad, SERVER, chain_limit=3, prefer="verified")
    assert isinstance(found, NoParent)
    assert "backup bad0 holds pages" in found.reason
    assert found.reason.endswith("and 2 older ones will not do either")


RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=9).map(
    lambda pairs: [(Lsn(start), Lsn(start + length)) for start, length in pairs]
)


@given(RANGES, st.integers(0, 70))
def test_summaries_are_unbroken_where_no_byte_up_to_the_newest_is_missing(
    ranges: list[tuple[Lsn, Lsn]], start: int
) -> None:
    held = {byte for low, high in ranges for byte in range(low, high)}
    newest = max((high for _, high in ranges), default=0)
    expected = all(byte in held for byte in range(start, newest))
    assert WalSummaries(enabled=True, ranges=ranges).unbroken_since(Lsn(start)) is expected


CANDIDATES = st.lists(
    st.builds(
        replace,
        st.just(GOOD),
        label=st.uuids().map(str),
        depth=st.integers(0, 5),
        timeline=st.integers(1, 2),
        start_lsn=st.integers(50, 300).map(Lsn),
        suspect=st.booleans(),
        verified=st.sampled_from([None, True, False]),
        data_checksums=st.booleans(),
    ),
    max_size=6,
)


@given(CANDIDATES, st.sampled_from(["verified", "newest"]))
def test_what_is_chosen_is_sound_and_nothing_newer_was_better(
    candidates: list[ParentCandidate], prefer: Literal["verified", "newest"]
) -> None:
    def sound(item: ParentCandidate) -> bool:
        return (
            not item.suspect
            and item.verified is not False
            and (item.timeline, item.data_checksums, item.depth < 3, item.start_lsn >= 100)
            == (1, True, True, True)
        )

    good = [item for item in candidates if sound(item)]
    wanted = [item for item in good if item.verified] if prefer == "verified" else good
    found = choose_parent(candidates, SERVER, chain_limit=3, prefer=prefer)
    if good:
        assert found == (wanted or good)[0]
    else:
        assert isinstance(found, NoParent)
