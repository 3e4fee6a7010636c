"""Lifecycle and immutability as Microsoft documents them, case by case."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.lifecycle_rules import (
    AccountProtection,
    AgeCondition,
    ContainerPolicy,
    LifecycleAction,
    LifecycleRule,
    PolicySnapshot,
)

WRITTEN = datetime(2026, 11, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)
FOLDER = "full/orders/20261101T030000Z-F-k3x7/"


def rule(*prefixes: str, **more: object) -> LifecycleRule:
    delete = {LifecycleAction.DELETE: AgeCondition(modification=10)}
    return LifecycleRule("old", delete, prefixes=prefixes, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefixes", "touched"),
    [
        ((), True),  # without a prefix the rule is about the whole account
        (("full",), True),
        (("full/",), True),
        (("fu",), True),  # a prefix need not end where a name does
        (("full/orders/",), True),
        (("full/orders/2026",), True),
        (("full/orders/20261101T030000Z-F-k3x7/base.pgdata.0000",), True),  # one blob is enough
        (("full/orders/20261108",), False),
        (("Full/",), False),  # case counts
        (("full/*/20261101",), False),  # no wildcards: a star is a star
        (("orders/",), False),  # a prefix begins with the container
        (("wal/", "full/o"), True),  # any of them
        (("incremental/", "wal/"), False),
    ],
)
def test_a_prefix_is_compared_from_the_container_on(
    *, prefixes: tuple[str, ...], touched: bool
) -> None:
    assert rule(*prefixes).touches(FOLDER) is touched


@pytest.mark.parametrize(
    ("more", "touched"),
    [
        ({"enabled": False}, False),
        ({"blob_types": ("appendBlob",)}, False),
        ({"blob_types": ("appendBlob", "blockBlob")}, True),
        ({"tags": (("keep", "no"),)}, False),  # pgkeep sets no tags
    ],
)
def test_all_filters_must_agree(*, more: dict[str, object], touched: bool) -> None:
    assert rule("full/", **more).touches(FOLDER) is touched


@pytest.mark.parametrize(
    ("tags", "touched"),
    [
        ({"keep": "no", "class": "b"}, True),
        ({"keep": "no"}, False),  # every tag that is named
        ({"keep": "No", "class": "b"}, False),
    ],
)
def test_a_rule_for_tags_touches_what_carries_all_of_them(
    *, tags: dict[str, str], touched: bool
) -> None:
    tagged = rule(tags=(("keep", "no"), ("class", "b")))
    assert tagged.touches(FOLDER, tags) is touched


@pytest.mark.parametrize(
    ("condition", "days"),
    [
        (AgeCondition(modification=10), 10),
        (AgeCondition(creation=10.5), 10.5),
        (AgeCondition(last_access=10), 10),
        (AgeCondition(modification=0), 0),
        (AgeCondition(modification=10, tier_change=30), 30),  # both must have passed
        (AgeCondition(modification=30, tier_change=7), 30),
        (AgeCondition(), 0),  # nothing is asked for
    ],
)
def test_a_condition_is_met_when_its_days_have_passed(condition: AgeCondition, days: float) -> None:
    assert condition.earliest(WRITTEN, access_tracked=True) == WRITTEN + days * DAY


def test_without_tracking_of_accesses_their_age_may_be_reached_at_once() -> None:
    """Azure then counts from the day on which the policy was enabled."""
    condition = AgeCondition(last_access=90)
    assert condition.earliest(WRITTEN, access_tracked=False) == WRITTEN


@pytest.mark.parametrize(
    ("policy", "day"),
    [
        (ContainerPolicy(), 10),
        (ContainerPolicy(7, locked=True), 10),
        (ContainerPolicy(28, locked=True), 28),  # passed over until then
        (ContainerPolicy(28, locked=False), 10),  # may be withdrawn any day
        (ContainerPolicy(None, locked=True), 10),
        (ContainerPolicy(legal_holds=("case42",)), None),
        (ContainerPolicy(7, legal_holds=("case42",)), None),
    ],
)
def test_immutable_blobs_are_passed_over_until_nothing_keeps_them(
    policy: ContainerPolicy, day: int | None
) -> None:
    snapshot = PolicySnapshot(containers={"full": policy})
    due = snapshot.deletion(rule(), FOLDER, WRITTEN)
    assert due == (None if day is None else WRITTEN + day * DAY)
    assert snapshot.deletion(rule(), "wal/orders/", WRITTEN) == WRITTEN + 10 * DAY


def test_an_immutable_blob_is_archived_all_the_same() -> None:
    archive = LifecycleRule("cold", {LifecycleAction.ARCHIVE: AgeCondition(modification=3)})
    snapshot = PolicySnapshot(containers={"full": ContainerPolicy(28, locked=True)})
    assert snapshot.archiving(archive, WRITTEN) == WRITTEN + 3 * DAY
    assert snapshot.deletion(archive, FOLDER, WRITTEN) is None
    assert snapshot.archiving(rule(), WRITTEN) is None


def test_cooler_tiers_and_previous_versions_are_no_harm() -> None:
    cool = {LifecycleAction.COOL: AgeCondition(modification=0)}
    cold = {LifecycleAction.COLD: AgeCondition(modification=0)}
    rules = (LifecycleRule("a", cool), LifecycleRule("b", cold), LifecycleRule("versions", {}))
    assert list(PolicySnapshot(rules).touching(FOLDER)) == []


def test_accesses_count_as_the_account_tracks_them() -> None:
    unread = LifecycleRule("unread", {LifecycleAction.DELETE: AgeCondition(last_access=9)})
    tracked = PolicySnapshot(protection=AccountProtection(access_tracked=True))
    assert tracked.deletion(unread, FOLDER, WRITTEN) == WRITTEN + 9 * DAY
    assert PolicySnapshot().deletion(unread, FOLDER, WRITTEN) == WRITTEN
