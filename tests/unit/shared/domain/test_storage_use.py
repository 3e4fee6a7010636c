"""Budgets of storage: the trend by least squares, the days that are left, the finding."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.storage_use import (
    DAYS_CONSIDERED,
    StorageSample,
    days_to_full,
    growth_per_day,
    storage_findings,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TODAY = NOW.date()
GB = 10**9


def line(days: int, at_first: int, each_day: int) -> list[StorageSample]:
    first = TODAY - timedelta(days=days - 1)
    return [
        StorageSample(first + timedelta(days=day), at_first + day * each_day) for day in range(days)
    ]


@given(st.integers(3, DAYS_CONSIDERED), st.integers(0, 10**13), st.integers(-(10**9), 10**10))
def test_what_grows_evenly_grows_by_so_much_a_day(days: int, first: int, each_day: int) -> None:
    assert growth_per_day(line(days, first, each_day)) == pytest.approx(each_day, abs=1, rel=1e-6)


@given(st.lists(st.integers(0, 10**13), min_size=3, max_size=40), st.randoms())
def test_the_trend_lies_within_the_steepest_steps_whatever_the_order(
    used: list[int], random: Random
) -> None:
    samples = [StorageSample(TODAY + timedelta(days=day), one) for day, one in enumerate(used)]
    considered = used[-DAYS_CONSIDERED:]
    steps = [later - earlier for earlier, later in pairwise(considered)]
    random.shuffle(samples)
    growth = growth_per_day(samples)
    assert growth is not None
    slack = 1 + 1e-6 * max(considered)
    assert min(steps) - slack <= growth <= max(steps) + slack


def test_two_days_are_no_trend_however_often_they_were_looked_at() -> None:
    assert growth_per_day(line(2, 0, GB)) is None
    assert growth_per_day(line(2, 0, GB) * 5) is None


def test_a_gap_of_days_without_a_sample_does_not_bend_the_line() -> None:
    holey = [one for number, one in enumerate(line(20, GB, GB)) if number not in range(5, 15)]
    assert growth_per_day(holey) == pytest.approx(GB)


@given(st.integers(0, 10**13), st.integers(1, 10**13), st.none() | st.floats(-1e9, 1e9))
def test_days_to_full_are_known_only_where_it_grows(
    used: int, budget: int, growth: float | None
) -> None:
    left = days_to_full(used, budget, growth)
    if used >= budget:
        assert left == 0
    elif left is None:
        assert growth is None or growth * 3650 <= budget - used
    else:
        assert growth is not None
        assert left < 3650
        assert left * growth == pytest.approx(budget - used)


def test_a_budget_is_nearly_full_only_above_its_ratio_and_says_when_it_will_be() -> None:
    samples = line(10, 71 * GB, GB)
    assert list(storage_findings(80 * GB, 100 * GB, 0.8, samples, NOW)) == []
    assert list(storage_findings(99 * GB, None, 0.8, samples, NOW)) == []
    [finding] = storage_findings(81 * GB, 100 * GB, 0.8, samples, NOW)
    assert finding.fact == (
        "81% of the budget is used: 81.0 of 100.0 GB; at this rate it is full in 19 days"
    )
    assert finding.evidence["growth_bytes_per_day"] == str(GB)


def test_a_full_budget_without_a_trend_is_told_all_the_same() -> None:
    sample = [StorageSample(date(2026, 11, 22), 1)]
    [finding] = storage_findings(2, 1, 0.8, sample, NOW)
    assert finding.evidence["growth_bytes_per_day"] == "unknown"
    assert finding.evidence["days_to_full"] == "0.0"
