"""Cron expressions in UTC: the newest tick, the next one, and each cluster's own delay."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.schedule import (
    ScheduleInvalid,
    ScheduleKind,
    check_cron,
    delay_of,
    latest_tick,
    next_tick,
    scheduled_job_id,
    shortest_gap,
)
from shared.settings import Schedule

MAIN = cluster_name("main")
NOW = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
MILLENNIUM = datetime(2001, 1, 1, tzinfo=UTC)
CRONS = st.sampled_from(
    ["* * * * *", "*/7 3 * * *", "0 3 * * 0", "30 1 31 * *", "0 0 29 2 *", "0 2 * * 0L"]
)
INSTANTS = st.integers(0, 99 * 365 * 86_400).map(lambda s: MILLENNIUM + timedelta(seconds=s))


def test_the_kinds_are_those_of_the_settings() -> None:
    assert {kind.value for kind in ScheduleKind} == set(Schedule.model_fields)
    assert {kind.backup_kind for kind in ScheduleKind} == {None, *BackupKind}


def test_s11_what_proves_comes_before_what_protects_and_that_before_the_rest() -> None:
    first = sorted(ScheduleKind, key=lambda kind: kind.priority)[:4]
    assert first == [
        ScheduleKind.VERIFY,
        ScheduleKind.FULL,
        ScheduleKind.INCREMENTAL,
        ScheduleKind.EXPIRE,
    ]


def test_other_ticks_clusters_and_kinds_give_other_job_ids() -> None:
    ids = {
        scheduled_job_id(cluster_name(name), kind, NOW + timedelta(hours=hours))
        for name in ("main", "other")
        for kind in ScheduleKind
        for hours in (0, 1)
    }
    assert len(ids) == 4 * len(ScheduleKind)


def test_s10_a_tick_on_a_leap_day_is_found_up_to_four_years_later() -> None:
    assert latest_tick("0 0 29 2 *", datetime(2027, 6, 1, tzinfo=UTC)) == datetime(
        2024, 2, 29, tzinfo=UTC
    )


def test_s10_the_last_sunday_is_found_across_the_turn_of_the_year() -> None:
    found = [datetime(2026, 11, 1, tzinfo=UTC)]
    for _ in range(3):
        found.append(next_tick("0 2 * * 0L", found[-1]))
    assert [f"{at:%F}" for at in found[1:]] == ["2026-11-29", "2026-12-27", "2027-01-31"]


@given(CRONS, INSTANTS)
def test_the_newest_tick_is_never_in_the_future_and_stays_until_the_next(
    cron: str, now: datetime
) -> None:
    tick = latest_tick(cron, now)
    following = next_tick(cron, now)
    assert tick <= now < following
    assert latest_tick(cron, tick) == tick
    assert next_tick(cron, tick) == following
    assert latest_tick(cron, following - timedelta(seconds=1)) == tick


@given(CRONS, st.integers(0, 720), st.text("abc", min_size=1, max_size=5))
def test_a_delay_is_always_the_same_and_never_reaches_half_way_to_the_next_tick(
    cron: str, minutes: int, name: str
) -> None:
    spread = timedelta(minutes=minutes)
    delays = {delay_of(cluster_name(name), "full", [cron], spread) for _ in range(2)}
    [delay] = delays
    assert timedelta() <= delay <= spread
    assert delay <= shortest_gap(cron) / 2


def test_delays_spread_a_fleet() -> None:
    spread = timedelta(hours=1)
    delays = [
        delay_of(cluster_name(f"c{number}"), "full", ["0 3 * * 0"], spread) for number in range(600)
    ]
    by_tenth = [sum(at // (spread / 10) == tenth for at in delays) for tenth in range(10)]
    assert all(30 <= count <= 90 for count in by_tenth)


@pytest.mark.parametrize(
    "cron", ["", "@daily", "* * * *", "0 0 * * * *", "61 * * * *", "0 0 30 2 *", "a b c d e"]
)
def test_what_is_no_cron_expression_of_five_fields_is_refused(cron: str) -> None:
    with pytest.raises(ScheduleInvalid) as refused:
        check_cron(cron)
    assert repr(cron) in refused.value.fact
