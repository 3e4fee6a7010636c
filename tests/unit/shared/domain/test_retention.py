"""What may be deleted: the rules by example, and what holds for every history."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupKind
from shared.domain.kept_backup import KeptBackup, RetentionPolicy
from shared.domain.lsn import Lsn
from shared.domain.retention import RetentionPlan, plan_retention
from shared.domain.wal_branches import WalBranch
from shared.domain.wal_retention import WalNeeds, WalOrigin, WalStretch

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEGMENT = 1 << 20
DAY = timedelta(days=1)
# A year of the log, one segment a day; the newest ends now.
DAYS = 400


def lsn(days_ago: float) -> Lsn:
    return Lsn(int((DAYS - days_ago) * SEGMENT))


def backup(days_ago: float, parent: KeptBackup | None = None, **more: Any) -> KeptBackup:
    """Taken so many days ago; verified, if not told otherwise. An incremental has a parent."""
    kind = BackupKind.FULL if parent is None else BackupKind.INCREMENTAL
    timeline = more.pop("timeline", 1)
    start, end = lsn(days_ago), lsn(days_ago - 0.1)
    known = KeptBackup(
        label=f"{kind.letter}{DAYS - days_ago:06.1f}",
        kind=kind,
        at=NOW - days_ago * DAY,
        timeline=timeline,
        start_lsn=start,
        digest=f"{days_ago}",
        parent=parent.label if parent else None,
        verified=True,
        stored_bytes=10,
        wal=(WalStretch(timeline, start, end),),
    )
    return replace(known, **more)


def plan(
    backups: Sequence[KeptBackup], policy: RetentionPolicy | None = None, **more: Any
) -> RetentionPlan:
    return plan_retention(backups, policy or RetentionPolicy(), NOW, **more)


def gone(found: RetentionPlan) -> list[str]:
    return [item.label for item in found.delete]


def why(found: RetentionPlan, item: KeptBackup) -> str:
    verdict = next(one for one in found.verdicts if one.backup == item)
    return f"{'stays' if verdict.keep else 'goes'}: {'; '.join(verdict.reasons)}"


class TestRules:
    def test_the_default_keeps_what_reaches_the_whole_of_the_promised_time(self) -> None:
        fulls = [backup(days) for days in (44, 37, 30, 23, 16, 9, 2)]

        found = plan(fulls)

        assert gone(found) == [fulls[0].label, fulls[1].label]
        assert why(found, fulls[2]) == "stays: the last 28 days of WAL begin with it"
        assert found.wal_before == {1: fulls[2].start_lsn}

    def test_an_old_incremental_goes_and_a_parent_of_a_young_one_stays(self) -> None:
        full = backup(40)
        branch, first = backup(35, full), backup(34, full)
        second = backup(1, first)
        newer = backup(30)

        found = plan([full, branch, first, second, newer, backup(3), backup(2)])

        assert gone(found) == [branch.label]
        assert why(found, first) == f"stays: {second.label} builds on it"
        assert why(found, full) == f"stays: {first.label} builds on it"
        assert why(found, branch).startswith("goes: incremental backups stay 7 days")

    def test_a_chain_goes_child_by_child_and_the_oldest_chain_first(self) -> None:
        old = backup(90)
        links = [old]
        for days in (89, 88, 87):
            links.append(backup(days, links[-1]))
        later = backup(80)
        young = [backup(days) for days in (29, 2, 1)]
        everything = [*links, later, *young]

        assert gone(plan(everything)) == [*(item.label for item in links[::-1]), later.label]
        capped = plan(everything, RetentionPolicy(deletions_per_run=2))
        assert (gone(capped), capped.postponed) == ([links[3].label, links[2].label], 3)

    def test_the_last_good_ones_stay_at_any_age(self) -> None:
        fulls = [backup(days) for days in (300, 200, 100)]

        found = plan(fulls, RetentionPolicy(keep_last=2))

        assert gone(found) == [fulls[0].label]
        assert "one of the last 2 good full backups" in why(found, fulls[1])

    def test_rhythms_keep_the_first_good_one_of_their_periods(self) -> None:
        fulls = [backup(days) for days in range(0, 360, 5)]
        bad = {fulls[40].label}
        fulls = [replace(one, verified=one.label not in bad) for one in fulls]

        found = plan(fulls, RetentionPolicy(weekly=6, monthly=5, yearly=2, deletions_per_run=99))

        firsts: dict[tuple[int, int], KeptBackup] = {}
        for one in reversed(fulls):
            if one.verified:
                firsts.setdefault((one.at.year, one.at.month), one)
        monthly = [one for one in found.verdicts if "of its month" in "".join(one.reasons)]
        assert [one.backup for one in monthly] == sorted(firsts.values(), key=lambda i: i.at)[-5:]
        assert len([one for one in found.verdicts if "of its year" in "".join(one.reasons)]) == 2
        assert len([one for one in found.verdicts if "of its week" in "".join(one.reasons)]) == 6

    def test_a_held_backup_stays_with_its_chain_and_the_wal_to_its_end(self) -> None:
        full = backup(300)
        held = backup(299, full)
        others = [backup(days) for days in (30, 9, 2)]

        found = plan([full, held, *others], RetentionPolicy(holds={held.label}))

        assert gone(found) == []
        assert why(found, held) == "stays: held by the settings"
        assert found.wal.needs(1, lsn(299), lsn(298))
        assert not found.wal.needs(1, lsn(298), lsn(297))
        assert found.wal.needs(1, lsn(29), lsn(28))

    @pytest.mark.parametrize(
        "state", [{"verified": False}, {"suspect": True}, {"damaged": True}, {"at": NOW + DAY}]
    )
    def test_t3_only_good_backups_count(self, state: dict[str, Any]) -> None:
        good = [backup(days) for days in (90, 60)]
        junk = [backup(days, **state) for days in (50, 20, 10, 5, 1)]

        found = plan([*good, *junk])

        assert {item.label for item in found.delete} & {item.label for item in good} == set()
        assert found.floor == good[-1].label

    def test_an_unverified_old_backup_goes_only_behind_a_good_newer_one(self) -> None:
        good, unverified = backup(60), backup(50, verified=False)

        kept = plan([good, unverified])
        assert gone(kept) == []
        assert "newer than the newest good full backup" in why(kept, unverified)

        found = plan([good, unverified, backup(1)])
        assert gone(found) == [unverified.label]
        assert "it is unverified, and so does not count" in why(found, unverified)

    def test_an_unverified_backup_stays_while_only_it_reaches_the_promised_time(self) -> None:
        unverified = [backup(days, verified=False) for days in (50, 40)]

        found = plan([*unverified, backup(1), backup(0.5)])

        assert gone(found) == []
        assert "no good full backup is 28 days old to stand in for it" in why(found, unverified[0])
        assert found.wal_before == {1: lsn(50)}

    def test_proven_counts_like_verified(self) -> None:
        proven = backup(1, verified=False, proven=True)

        assert plan([backup(60), backup(50), proven]).floor == proven.label

    def test_i4_without_a_good_full_with_continuous_wal_nothing_goes(self) -> None:
        old = [backup(90), backup(60, continuous=False)]
        broken = [replace(one, continuous=False) for one in old]

        found = plan(broken, RetentionPolicy(keep_last=1))

        assert found.refused == (
            "no verified full backup has continuous WAL up to the newest that is archived"
        )
        assert (gone(found), found.floor) == ([], None)
        assert found.wal.needs(1, Lsn(0), Lsn(1))
        assert plan(old, RetentionPolicy(keep_last=1)).floor == old[0].label

    def test_a_new_cluster_is_no_refusal(self) -> None:
        found = plan([backup(1, verified=False)])

        assert (found.refused, found.floor, gone(found)) == (None, None, [])

    def test_a_document_that_nobody_can_believe_stops_everything(self) -> None:
        fulls = [backup(days) for days in (90, 60, 30, 2)]

        found = plan(fulls, unreadable=["20260101T000000Z-I-aaaa"])

        assert found.refused == "documents cannot be believed, of 20260101T000000Z-I-aaaa"
        assert (gone(found), found.wal_before) == ([], {})

    def test_a_hold_on_what_is_not_there_stops_everything(self) -> None:
        fulls = [backup(days) for days in (90, 60, 30, 2)]

        found = plan(fulls, RetentionPolicy(holds={fulls[0].label, "20260101T000000Z-F-typo"}))

        assert found.refused == "the settings hold what is not there: 20260101T000000Z-F-typo"
        assert gone(found) == []

    def test_a_backup_that_lost_blobs_counts_for_nothing_and_stays(self) -> None:
        good, robbed = backup(60), backup(40, whole=False)

        found = plan([backup(90), good, robbed, backup(1, whole=False)], RetentionPolicy())

        assert (found.floor, gone(found)) == (good.label, [])
        assert "blobs or keys of it are missing" in why(found, robbed)
        behind = plan([good, robbed, backup(30), backup(2), backup(1)])
        assert gone(behind) == [good.label]

    def test_w08_a_backup_of_the_branch_that_was_left_is_no_way_into_the_living_one(self) -> None:
        before, after = backup(50), backup(40)
        promoted = [backup(days, timeline=2) for days in (20, 2)]
        branches = [WalBranch(1, lsn(60), NOW - 39 * DAY), WalBranch(2, lsn(45), NOW)]

        found = plan([before, after, *promoted], branches=branches)

        assert gone(found) == []
        assert "the last 28 days of WAL begin with it" in why(found, before)
        assert found.wal.needs(2, lsn(45), lsn(44))
        assert gone(plan([before, after, *promoted])) == [before.label]

    def test_w08_the_floor_is_on_the_newest_timeline(self) -> None:
        before, left = backup(50), backup(40)
        unverified = backup(2, timeline=2, verified=False)
        branches = [WalBranch(1, lsn(60), NOW - 39 * DAY), WalBranch(2, lsn(45), NOW)]

        assert plan([before, left, unverified], branches=branches).floor == before.label
        refused = plan([left, unverified, backup(39)], branches=branches)
        assert (gone(refused), refused.floor) == ([], None)

    def test_behind_a_gap_whatever_the_log_goes_on_with_stays(self) -> None:
        short = RetentionPolicy(full_days=7, incremental_days=1)
        broken: dict[str, Any] = {"continuous": False, "reaches": lsn(24)}
        first, covered = backup(30, **broken), backup(26, **broken)
        link = backup(22, covered)
        later = [backup(days) for days in (15, 2, 1)]

        found = plan([first, covered, link, *later], short)

        assert gone(found) == [later[0].label]
        assert why(found, link) == (
            "stays: within the promised time no earlier one reaches it by WAL"
        )
        assert why(found, covered) == f"stays: {link.label} builds on it"
        whole = plan([backup(30), backup(26), backup(22, covered), *later], short)
        assert gone(whole) == [link.label, covered.label, later[0].label]

    def test_a_promotion_leaves_the_old_timelines_wal_until_its_backups_go(self) -> None:
        old, base = backup(60), backup(29)
        promoted = [backup(days, timeline=2) for days in (20, 2)]

        found = plan([old, base, *promoted])

        assert found.wal_before == {1: base.start_lsn, 2: base.start_lsn}
        later = plan([backup(29, timeline=2), *promoted])
        assert later.wal_before == {2: lsn(29)}
        assert not later.wal.needs(1, lsn(30), lsn(29))

    def test_the_digest_tells_what_goes_and_nothing_else(self) -> None:
        fulls = [backup(days) for days in (90, 60, 30, 2)]

        same = plan([*fulls, backup(0.5, fulls[-1])])
        assert plan(fulls).digest == same.digest
        assert plan(fulls[1:]).digest != same.digest
        assert plan(fulls, RetentionPolicy(wal_days=90)).digest != same.digest


class TestWalNeeds:
    NEEDS = WalNeeds(
        frozenset({WalOrigin(2, Lsn(500)), WalOrigin(4, Lsn(300))}),
        frozenset({WalStretch(2, Lsn(100), Lsn(150))}),
    )

    @pytest.mark.parametrize(
        ("timeline", "start", "end", "needed"),
        [
            (2, 400, 500, False),
            (2, 401, 501, True),
            (3, 450, 550, True),  # may descend from 2
            (4, 300, 301, True),
            (4, 200, 300, False),
            (1, 900, 1000, False),  # nothing that stays began on it or before
            (2, 149, 200, True),
            (2, 150, 200, False),
            (2, 0, 100, False),
            (3, 100, 150, False),  # the stretch is the other timeline's
        ],
    )
    def test_what_is_needed(self, timeline: int, start: int, end: int, *, needed: bool) -> None:
        assert self.NEEDS.needs(timeline, Lsn(start), Lsn(end)) is needed

    def test_without_an_origin_all_of_it_is(self) -> None:
        assert WalNeeds().needs(1, Lsn(0), Lsn(1))


POLICIES = st.builds(
    RetentionPolicy,
    full_days=st.sampled_from([1, 7, 28, 60]),
    incremental_days=st.sampled_from([1, 7, 30]),
    wal_days=st.sampled_from([1, 7, 28, 60]),
    keep_last=st.integers(1, 3),
    weekly=st.integers(0, 3),
    monthly=st.integers(0, 3),
    yearly=st.integers(0, 1),
    deletions_per_run=st.sampled_from([1, 3, 99]),
)


@st.composite
def histories(draw: st.DrawFn, *, good: bool | None = None) -> list[KeptBackup]:
    """Some backups of any state; `good` None means of any."""
    found: list[KeptBackup] = []
    days = draw(st.lists(st.integers(0, 900), unique=True, max_size=14))
    for tenths in sorted(days, reverse=True):
        flags: dict[str, Any] = {
            "verified": draw(st.booleans()) if good is None else good,
            "proven": draw(st.booleans()) if good is None else good,
            "suspect": draw(st.integers(0, 5)) == 0,
            "damaged": draw(st.integers(0, 5)) == 0,
            "continuous": draw(st.integers(0, 5)) > 0,
            "timeline": 1 if tenths > draw(st.integers(0, 900)) else 2,
        }
        parent = draw(st.sampled_from([None, None, *found[-3:]]))
        found.append(backup(tenths / 10, parent, **flags))
    return found


@st.composite
def junk(draw: st.DrawFn) -> list[KeptBackup]:
    """Neither verified nor proven, or dated in the future; none is the parent of another."""
    days = draw(st.lists(st.integers(-900, 900), unique=True, max_size=8))
    return [
        replace(
            backup(tenths / 10 + 0.05),
            verified=tenths < -1,
            continuous=draw(st.booleans()),
            timeline=draw(st.integers(1, 3)),
        )
        for tenths in days
    ]


def labels(backups: Sequence[KeptBackup]) -> set[str]:
    return {item.label for item in backups}


@given(histories(), junk(), POLICIES)
def test_t3_junk_never_makes_more_of_the_others_go(
    history: list[KeptBackup], more: list[KeptBackup], policy: RetentionPolicy
) -> None:
    junk = [item for item in more if item.label not in labels(history)]  # labels are names
    alone, together = plan(history, policy), plan([*history, *junk], policy)

    assert labels(together.delete) & labels(history) <= labels(alone.delete)
    for one in range(0, DAYS, 3):
        for timeline in (1, 2, 3):
            stretch = timeline, Lsn(one * SEGMENT), Lsn((one + 1) * SEGMENT)
            if alone.wal.needs(*stretch):
                assert together.wal.needs(*stretch)


@given(histories(), POLICIES)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    history: list[KeptBackup], policy: RetentionPolicy
) -> None:
    found = plan(history, policy)
    rest = [item for item in history if item not in found.delete]

    again = plan(rest, policy)

    assert len(again.delete) == min(found.postponed, policy.deletions_per_run)
    if not found.postponed:
        assert again.wal == found.wal


@given(histories(), POLICIES)
def test_i4_after_every_single_deletion_a_good_full_with_continuous_wal_stays(
    history: list[KeptBackup], policy: RetentionPolicy
) -> None:
    found = plan(history, policy)
    rest = list(history)
    for item in found.delete:
        rest.remove(item)
        there = labels(rest)
        assert any(one.good and one.continuous and one.kind is BackupKind.FULL for one in rest)
        orphans = [one for one in rest if one.parent and one.parent not in there]
        assert orphans == []


@given(histories(), POLICIES)
def test_the_wal_of_what_stays_stays(history: list[KeptBackup], policy: RetentionPolicy) -> None:
    found = plan(history, policy)
    for item in history:
        if item not in found.delete:
            assert all(found.wal.needs(*_bounds(one)) for one in item.wal)
        if item.label == found.floor:
            for start, end in pairwise(range(int(item.start_lsn), DAYS * SEGMENT, SEGMENT)):
                assert found.wal.needs(item.timeline, Lsn(start), Lsn(end))


def _bounds(one: WalStretch) -> tuple[int, Lsn, Lsn]:
    return one.timeline, one.start, one.end


@given(
    histories(),
    POLICIES,
    st.sampled_from(["full_days", "incremental_days", "keep_last", "weekly", "monthly", "yearly"]),
    st.integers(1, 40),
)
def test_a_more_generous_policy_never_deletes_more(
    history: list[KeptBackup], policy: RetentionPolicy, knob: str, more: int
) -> None:
    policy = replace(policy, deletions_per_run=99)
    generous = replace(policy, **{knob: getattr(policy, knob) + more})

    assert labels(plan(history, generous).delete) <= labels(plan(history, policy).delete)


@given(histories(), POLICIES, st.integers(1, 40))
def test_a_longer_promise_never_begins_later(
    history: list[KeptBackup], policy: RetentionPolicy, more: int
) -> None:
    short, long = plan(history, policy), plan(history, replace(policy, wal_days=99 + more))

    for timeline, start in short.wal_before.items():
        before = long.wal.before(timeline)
        assert before is not None
        assert before <= start
