"""WAL rows: the best run counts, peers do the same thing, delays belong to ends of segments."""

from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from local.benchmark.printed import print_report
from local.benchmark.wal.receive import Sample, delays
from local.benchmark.wal.report import Moved, WalOperation, WalRatio, WalRow, compared, wal_row
from local.benchmark.wal.supply import SEGMENT
from local.percentiles import percentile, spread
from tests.unit.local.test_benchmark_report import report


def push(tool: str, wall: float, *delays_s: float) -> WalRow:
    return wal_row(tool, WalOperation.PUSH, [Moved(wall, 1.0, delays_s)], 64)


def test_the_fastest_run_counts() -> None:
    runs = [Moved(9, 3, [0.2]), Moved(8, 4, [0.1, 0.3], failures=1, waited_s=0.4), Moved(10, 1)]
    row = wal_row("pgkeep", WalOperation.REPLAY, runs, 64)
    assert (row.name, row.wall_s, row.segments_per_s) == ("pgkeep replay", 8, 8.0)
    assert (row.machine_cpu_s, row.failures, row.waiting_share) == (4, 1, 0.05)
    assert row.delay_ms is not None
    assert (row.delay_ms.p50, row.delay_ms.max) == (100, 300)


def test_a_push_is_compared_with_pushes_only() -> None:
    ours, theirs, copy = compared(
        [
            push("pgkeep", 4, 0.05),
            push("pgBackRest", 8, 0.2),
            wal_row("cp", WalOperation.REPLAY, [Moved(1, 1)], 64),
        ]
    )
    assert ours.ratios == {"pgBackRest": WalRatio(wall=0.5, p99=0.25)}
    assert theirs.ratios["pgkeep"].p99 == 4
    assert copy.ratios == {}


def test_the_table_tells_delays_ratios_and_what_was_behind() -> None:
    behind = wal_row(
        "pgkeep", WalOperation.RECEIVE, [Moved(2, 1, [0.5], behind_bytes=7_000_000)], 8
    )
    rows = compared([push("pgkeep", 4, 0.05), push("pgBackRest", 8, 0.2), behind])
    screen = StringIO()
    print_report(report().model_copy(update={"wal": rows}), Console(file=screen, width=120))
    for words in ("16.0", "50", "pgkeep push: 0.50 of the time of pgBackRest", "p99 0.25", "7"):
        assert words in screen.getvalue()


def test_a_delay_is_from_the_written_to_the_durable_end_of_a_segment() -> None:
    samples = [
        Sample(0.0, SEGMENT // 2, 0),
        Sample(1.0, SEGMENT, 0),
        Sample(2.0, 2 * SEGMENT + 5, SEGMENT),
        Sample(3.0, 2 * SEGMENT + 5, SEGMENT),
        Sample(4.5, 2 * SEGMENT + 5, 2 * SEGMENT),
    ]
    assert delays(samples, SEGMENT // 2, 2 * SEGMENT + 5) == [1.0, 2.5]
    assert delays(samples, SEGMENT, 2 * SEGMENT) == [2.5]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_a_value_that_enough_values_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_a_spread_of_a_hundred_values_leaves_one_above_its_p99() -> None:
    found = spread([float(number) for number in range(1, 101)])
    assert (found.p50, found.p99, found.max) == (50, 99, 100)
