"""What was promised in a period and what was done: each tick is met, missed or still open."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.audit import duties

START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAILY = [("full", "0 2 * * *")]


def at(day: float) -> datetime:
    """02:00 of that day of November, and so much later."""
    return START + timedelta(hours=2) + day * DAY


def test_a_tick_is_met_by_what_is_done_before_the_next() -> None:
    done = {"full": [at(0.1), at(1.99), at(3)]}
    [duty] = duties(DAILY, done, START, START + 5 * DAY)
    assert (duty.kind, duty.expected, duty.met, duty.open) == ("full", 5, 3, 1)
    assert duty.missed == (at(2),)


def test_what_is_switched_off_is_no_duty() -> None:
    assert duties([("verify", False)], {}, START, START + DAY) == ()


def test_two_runs_after_one_tick_meet_only_that_one() -> None:
    done = {"full": [at(0.1), at(0.2), at(0.3)]}
    [duty] = duties(DAILY, done, START, START + 3 * DAY)
    assert (duty.met, duty.open, duty.missed) == (1, 1, (at(1),))


def test_of_a_month_the_last_sunday_is_one_duty() -> None:
    [duty] = duties([("drill_extended", "0 2 * * 0L")], {}, START, START + 35 * DAY)
    assert duty.expected == 1
    assert (duty.open, duty.missed) == (1, ())


@given(st.lists(st.floats(-5, 40), max_size=60), st.integers(1, 30))
def test_every_tick_is_exactly_one_of_three(days: list[float], length: int) -> None:
    done = {"full": [at(day) for day in days]}
    [duty] = duties(DAILY, done, START, START + length * DAY)
    assert duty.expected == length == duty.met + duty.open + len(duty.missed)
    assert duty.open <= 1
    [more] = duties(DAILY, {"full": [*done["full"], at(0.5)]}, START, START + length * DAY)
    assert set(more.missed) <= set(duty.missed)
