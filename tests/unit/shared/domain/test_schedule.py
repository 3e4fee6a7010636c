"""Which backups are due: one catch-up for missed ticks, the same job for the same tick."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.schedule import (
    LATE_AFTER,
    BackupSchedule,
    ScheduleInvalid,
    check_cron,
    due,
    latest_tick,
    scheduled_job_id,
)

MAIN = cluster_name("main")
HOURLY = BackupSchedule(MAIN, BackupKind.FULL, "0 * * * *")
NOW = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
MILLENNIUM = datetime(2001, 1, 1, tzinfo=UTC)
Served = dict[tuple[ClusterName, BackupKind], datetime]


def served(tick: datetime) -> Served:
    return {(MAIN, BackupKind.FULL): tick}


def test_a_cluster_that_was_never_served_is_due_for_its_newest_tick() -> None:
    (found,) = due([HOURLY], {}, NOW)
    assert found.due == NOW.replace(minute=0, second=0)
    assert not found.late


def test_s01_three_days_of_missed_ticks_make_one_late_catch_up() -> None:
    now = NOW.replace(minute=40)
    (found,) = due([HOURLY], served(NOW - timedelta(days=3)), now)
    assert found.due == now.replace(minute=0, second=0)
    assert found.late


def test_a_tick_that_was_served_is_not_due_again_until_the_next_one() -> None:
    tick = NOW.replace(minute=0, second=0)
    assert due([HOURLY], served(tick), NOW) == []
    assert due([HOURLY], served(tick), tick + timedelta(minutes=59, seconds=59)) == []
    (next_one,) = due([HOURLY], served(tick), tick + timedelta(hours=1))
    assert next_one.due == tick + timedelta(hours=1)


def test_s02_two_instances_and_two_runs_give_the_same_job_id() -> None:
    first = due([HOURLY], {}, NOW)
    second = due([HOURLY], {}, NOW + timedelta(seconds=40))
    assert [item.job_id for item in first] == [item.job_id for item in second]


def test_other_ticks_clusters_and_kinds_give_other_job_ids() -> None:
    ids = {
        scheduled_job_id(cluster_name(name), kind, NOW + timedelta(hours=hours))
        for name in ("main", "other")
        for kind in BackupKind
        for hours in (0, 1)
    }
    assert len(ids) == 8


def test_s10_a_tick_on_a_leap_day_is_found_up_to_four_years_later() -> None:
    assert latest_tick("0 0 29 2 *", datetime(2027, 6, 1, tzinfo=UTC)) == datetime(
        2024, 2, 29, tzinfo=UTC
    )


@given(
    st.sampled_from(["* * * * *", "*/7 3 * * *", "0 3 * * 0", "30 1 31 * *", "0 0 29 2 *"]),
    st.integers(0, 99 * 365 * 86_400).map(lambda seconds: MILLENNIUM + timedelta(seconds=seconds)),
)
def test_the_newest_tick_is_never_in_the_future_and_stays_until_the_next(
    cron: str, now: datetime
) -> None:
    tick = latest_tick(cron, now)
    assert tick <= now
    assert latest_tick(cron, tick) == tick
    late = now - tick > LATE_AFTER
    assert [item.late for item in due([BackupSchedule(MAIN, BackupKind.FULL, cron)], {}, now)] == [
        late
    ]


@pytest.mark.parametrize(
    "cron", ["", "@daily", "* * * *", "0 0 * * * *", "61 * * * *", "0 0 30 2 *", "a b c d e"]
)
def test_what_is_no_cron_expression_of_five_fields_is_refused(cron: str) -> None:
    with pytest.raises(ScheduleInvalid) as refused:
        check_cron(cron)
    assert repr(cron) in refused.value.fact
