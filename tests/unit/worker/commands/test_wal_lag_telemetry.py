"""The lag of a receiver: since when its archive is not known to hold all of the server's WAL."""

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from worker.commands.wal_lag import WalLag


def test_one_that_holds_everything_it_heard_of_has_none_as_long_as_it_is_connected() -> None:
    lag = WalLag(0)
    lag.hear(Lsn(100), 5)
    lag.settle(Lsn(100), 6)
    assert lag.seconds(6) == 0
    lag.settle(Lsn(100), 60)  # a quiet server
    assert lag.seconds(60.5) == 0.5


def test_without_a_connection_it_grows_and_what_comes_then_is_as_old_as_the_outage() -> None:
    lag = WalLag(0)
    lag.settle(Lsn(100), 10)
    assert lag.seconds(70) == 60
    lag.begin()
    lag.hear(Lsn(300), 80)
    lag.settle(Lsn(200), 90)
    assert lag.seconds(90) == 80
    lag.settle(Lsn(300), 95)
    assert lag.seconds(95) == 0


def test_another_timeline_s_positions_do_not_hold_the_lag_up_for_ever() -> None:
    lag = WalLag(0)
    lag.settle(Lsn(0), 10)
    lag.hear(Lsn(5000), 11)
    lag.begin()  # the server failed over, and its new line is shorter
    lag.hear(Lsn(4000), 20)
    assert lag.seconds(20) == 10
    lag.settle(Lsn(4000), 21)
    assert lag.seconds(21) == 0


STEPS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 60), st.floats(0, 5)), min_size=1, max_size=30
)


@given(STEPS)
def test_it_is_the_age_of_the_oldest_position_that_is_missing_to_a_second(
    steps: list[tuple[int, int, float]],
) -> None:
    lag, now, server, durable = WalLag(0), 0.0, 0, 0
    told: list[tuple[int, float]] = []
    complete = 0.0
    for written, stored, pause in steps:
        now += pause
        server += written
        told.append((server, now))
        lag.hear(Lsn(server), now)
        durable = min(server, durable + stored)
        lag.settle(Lsn(durable), now)
        if durable == server:
            complete = now
    missing = [at for end, at in told if end > durable]
    oldest = min(missing, default=complete)
    # What came after a complete moment is taken to be as old as that moment.
    earliest = max([complete, *(at for end, at in told if end <= durable)])
    assert now - oldest <= lag.seconds(now) <= now - min(earliest, oldest) + 1.0
