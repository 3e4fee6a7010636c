"""How far the agent says that the archive reaches."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segment_name
from worker.commands.wal_archived import ArchivedThrough, Reached
from worker.commands.wal_push import Pushed

MIB = 1 << 20
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def name(number: int, timeline: int = 1) -> WalFileName:
    return WalFileName.parse(segment_name(timeline, Lsn(number * MIB), MIB))


def pushed(number: int, timeline: int = 1) -> Pushed:
    start = Lsn(number * MIB)
    return Pushed(timeline, start, start + MIB, NOON + timedelta(minutes=number))


@given(st.permutations(range(7, 15)), st.integers(0, 8))
def test_w19_only_what_touches_counts_in_whatever_order_it_became_durable(
    order: list[int], known: int
) -> None:
    through = ArchivedThrough()
    durable = {7, *order[:known]}
    for number in (*order[:known], 7):
        through.add(pushed(number))
    assert through.reached is None  # nobody asked yet: what lies before may be missing
    through.confirm(name(7))
    last = next(number for number in range(7, 16) if number + 1 not in durable)
    expected = Reached(1, Lsn((last + 1) * MIB), NOON + timedelta(minutes=last))
    assert through.reached == expected


def test_postgresql_asks_for_the_oldest_so_what_lies_before_is_archived() -> None:
    through = ArchivedThrough()
    through.add(pushed(7))
    through.confirm(name(7))
    through.add(pushed(20))
    assert through.reached == Reached(1, Lsn(8 * MIB), NOON + timedelta(minutes=7))
    through.confirm(name(20))
    assert through.reached == Reached(1, Lsn(21 * MIB), NOON + timedelta(minutes=20))
    through.add(pushed(3))
    through.confirm(name(3))  # somebody fills a gap by hand
    assert through.reached == Reached(1, Lsn(21 * MIB), NOON + timedelta(minutes=20))


def test_a_new_timeline_goes_on_where_it_begins() -> None:
    through = ArchivedThrough()
    through.confirm(WalFileName.parse("00000002.history"))
    through.add(pushed(7))
    through.confirm(name(7))
    through.add(pushed(7, timeline=2))
    through.confirm(name(7, timeline=2))
    reached = Reached(2, Lsn(8 * MIB), NOON + timedelta(minutes=7))
    assert through.reached == reached
    through.add(pushed(8))
    through.confirm(name(8))
    assert through.reached == reached
