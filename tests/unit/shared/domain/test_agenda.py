"""The agenda: each tick is served once at most, missed ones are caught up once, clocks may jump."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.agenda import AgendaEntry, Wish, follow, wishes_of
from shared.domain.cluster import cluster_name
from shared.domain.schedule import ScheduleKind, latest_tick, next_tick, shortest_gap

MAIN = cluster_name("main")
NOW = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = Wish(MAIN, ScheduleKind.VERIFY, "0 * * * *")


def entry(served: datetime | None, **changes: object) -> AgendaEntry:
    plain = AgendaEntry(MAIN, ScheduleKind.VERIFY, "0 * * * *", timedelta(), NOW, served)
    return replace(plain, **changes)  # type: ignore[arg-type] # names of its fields


def test_s01_three_days_of_missed_ticks_make_one_late_catch_up() -> None:
    now = NOW.replace(minute=40)
    owed = entry(now - timedelta(days=3))
    tick = owed.tick_at(now)
    assert tick is not None
    assert (tick.due, tick.late) == (now.replace(minute=0, second=0), True)
    after = owed.after(tick)
    assert after.next_at == tick.due + HOUR
    assert after.tick_at(now) is None


def test_a_tick_served_in_time_is_not_late() -> None:
    tick = entry(None).tick_at(NOW)
    assert tick is not None
    assert not tick.late


def test_a_delay_moves_the_serving_and_not_the_tick() -> None:
    delayed = entry(NOW - HOUR, delay=timedelta(minutes=10))
    hour = NOW.replace(minute=0, second=0)
    tick = delayed.tick_at(hour + timedelta(minutes=10))
    assert tick is not None
    assert (tick.due, tick.late) == (hour, False)
    early = delayed.tick_at(hour + timedelta(minutes=9))
    assert early is None or early.due == hour - HOUR
    assert delayed.after(tick).next_at == hour + HOUR + timedelta(minutes=10)


def test_s03_skips_are_counted_in_a_row() -> None:
    one = entry(NOW - 5 * HOUR)
    for count in (1, 2, 3):
        tick = one.tick_at(NOW + count * HOUR)
        assert tick is not None
        one = one.after(tick, skipped=True)
        assert one.skipped == count
    tick = one.tick_at(NOW + 4 * HOUR)
    assert tick is not None
    assert one.after(tick).skipped == 0


STEPS = st.lists(
    st.tuples(st.integers(-200, 2000), st.booleans()), min_size=1, max_size=60
)  # minutes by which the clock moves, and whether the dispatcher dies before it writes


@given(
    st.sampled_from(["0 * * * *", "*/5 * * * *", "0 3 * * 0", "17 2 1 * *"]),
    st.integers(0, 30),
    STEPS,
)
def test_s02_s05_whatever_the_clock_does_no_tick_is_served_twice_and_none_owed_for_long(
    cron: str, spread: int, steps: list[tuple[int, bool]]
) -> None:
    wanted = wishes_of(MAIN, {ScheduleKind.VERIFY: cron}, timedelta(minutes=spread))
    [one] = follow(wanted, {}, NOW).put
    now, served, furthest = NOW, list[datetime](), NOW
    for minutes, dies in steps:
        now += timedelta(minutes=minutes)
        if dies:
            continue
        furthest = max(furthest, now)
        if one.next_at > now:
            continue
        tick = one.tick_at(now)
        one = one.once_more(now) if tick is None else one.after(tick)
        if tick is not None:
            served.append(tick.due)
        assert one.next_at > now
        # Who looks owes nothing of what any clock has seen before.
        assert one.served is not None
        assert one.served >= latest_tick(cron, now - one.delay)
    assert served == sorted(set(served))
    # However far ahead a clock was, the agenda is never further ahead than one tick.
    assert one.next_at <= next_tick(cron, furthest) + one.delay


@given(
    st.sampled_from(["0 2 * * 0", "30 1 * * *", "0 */6 * * *"]),
    st.sampled_from(["0 2 * * *", "*/5 * * * *", "0 * * * *"]),
    st.integers(0, 120),
)
def test_a_full_and_an_incremental_of_one_tick_come_up_together(
    full: str, incremental: str, spread: int
) -> None:
    crons = {ScheduleKind.FULL: full, ScheduleKind.INCREMENTAL: incremental}
    delays = {one.delay for one in wishes_of(MAIN, crons, timedelta(minutes=spread))}
    [delay] = delays
    assert delay <= min(shortest_gap(full), shortest_gap(incremental)) / 2


class TestFollow:
    def test_a_new_cluster_wants_its_first_full_at_once_and_the_rest_in_time(self) -> None:
        wanted = [
            Wish(MAIN, ScheduleKind.FULL, "0 3 * * 0"),
            Wish(MAIN, ScheduleKind.DRILL_DISASTER, "0 2 * 10 6#2"),
        ]
        full, drill = follow(wanted, {}, NOW).put
        tick = full.tick_at(NOW)
        assert tick is not None
        assert tick.due == latest_tick("0 3 * * 0", NOW)
        assert drill.next_at == next_tick("0 2 * 10 6#2", NOW)
        assert drill.tick_at(NOW) is None
        assert drill.tick_at(drill.next_at) is not None

    def test_what_stays_the_same_is_left_alone(self) -> None:
        known = {HOURLY.key: entry(NOW - HOUR, skipped=2)}
        assert follow([HOURLY], known, NOW).put == ()
        assert follow([HOURLY], known, NOW).remove == ()

    def test_s12_a_changed_schedule_holds_from_the_next_tick_on(self) -> None:
        known = {HOURLY.key: entry(NOW, next_at=NOW + HOUR)}
        [changed] = follow([replace(HOURLY, cron="30 * * * *")], known, NOW).put
        assert changed.next_at == NOW.replace(minute=30, second=0)
        assert changed.served == NOW

    def test_a_tick_that_is_owed_stays_owed_when_the_schedule_changes(self) -> None:
        known = {HOURLY.key: entry(NOW - timedelta(days=3), next_at=NOW - timedelta(days=2))}
        [changed] = follow([replace(HOURLY, cron="30 6 * * *")], known, NOW).put
        tick = changed.tick_at(NOW)
        assert tick is not None
        assert tick.late
        assert tick.due == NOW.replace(hour=6, minute=30, second=0)
        assert changed.next_at == NOW - timedelta(days=2)

    @pytest.mark.parametrize("minutes", [0, 10, 45])
    def test_a_tick_whose_delay_is_not_over_is_kept_when_the_spread_changes(
        self, minutes: int
    ) -> None:
        hour, late = NOW.replace(minute=0, second=0), timedelta(minutes=30)
        known = {HOURLY.key: entry(hour - HOUR, delay=late, next_at=hour + late)}
        delay = timedelta(minutes=minutes)
        [changed] = follow([replace(HOURLY, delay=delay)], known, hour + late / 2).put
        assert changed.next_at == hour + delay
        tick = changed.tick_at(hour + delay)
        assert tick is not None
        assert tick.due == hour

    def test_what_is_no_longer_wanted_is_removed(self) -> None:
        known = {HOURLY.key: entry(NOW)}
        assert follow([], known, NOW).remove == (HOURLY.key,)
