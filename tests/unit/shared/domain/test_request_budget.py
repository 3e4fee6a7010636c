"""How many requests a minute, whenever they come."""

from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.request_budget import Budget
from shared.errors import RequestsTooMany

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def answered(budget: Budget, times: list[datetime]) -> list[datetime]:
    """Those of the requests at these times that are not too many."""
    whole_at, allowed = NOON, []
    for now in times:
        spent = budget.spent(whole_at, now)
        try:
            budget.demand_room(spent, now)
        except RequestsTooMany:
            continue
        whole_at = spent
        allowed.append(now)
    return allowed


@given(st.integers(1, 5000))  # beyond, the rounding to microseconds lets one more in
def test_after_silence_a_minute_s_requests_may_come_at_once_and_no_more(per_minute: int) -> None:
    budget = Budget("anna", per_minute)
    whole_at = NOON + budget.cost * (per_minute - 1)
    budget.demand_room(budget.spent(whole_at, NOON), NOON)
    with pytest.raises(RequestsTooMany) as refused:
        budget.demand_room(budget.spent(whole_at + budget.cost, NOON), NOON)
    assert 1 <= refused.value.wait_s <= 61


@given(st.integers(1, 20), st.lists(st.integers(0, 20_000), max_size=100))
def test_in_no_minute_are_there_more_than_a_burst_and_what_drips(
    per_minute: int, pauses_ms: list[int]
) -> None:
    times = [NOON + timedelta(milliseconds=ms) for ms in accumulate(pauses_ms)]
    allowed = answered(Budget("anna", per_minute), times)
    for begin in allowed:
        assert sum(begin <= one < begin + MINUTE for one in allowed) <= 2 * per_minute


def test_a_heavy_request_costs_more_and_one_at_least_is_always_answered() -> None:
    times = [NOON] * 30
    assert len(answered(Budget("anna", 600, weight=20), times)) == 30
    assert len(answered(Budget("anna", 100, weight=20), times)) == 5
    assert len(answered(Budget("anna", 5, weight=20), times)) == 1


@given(st.integers(1, 50), st.integers(0, 200))
def test_who_waits_as_told_is_answered(per_minute: int, asked: int) -> None:
    budget = Budget("anna", per_minute)
    whole_at = NOON + budget.cost * min(asked, per_minute)
    try:
        budget.demand_room(budget.spent(whole_at, NOON), NOON)
    except RequestsTooMany as refused:
        later = NOON + timedelta(seconds=refused.wait_s)
        budget.demand_room(budget.spent(whole_at, later), later)
    assert answered(budget, [NOON + MINUTE * n for n in range(3)]) == [
        NOON + MINUTE * n for n in range(3)
    ]
