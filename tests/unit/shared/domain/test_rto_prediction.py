"""What is predicted of a recovery: it scales with what has to be moved, and says how sure it is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.finding_rules import FindingCode
from shared.domain.rto_prediction import DRILLS_CONSIDERED, DrillTimes, predict_rto, rto_findings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GB = 10**9
PHASES = {
    "plan": 1000, "keys": 500, "fetch_apply": 100_000, "recovery": 10_000, "replay": 40_000,
    "open": 500, "checks": 600_000,
}  # fmt: skip
DRILL = DrillTimes(NOW, restored_bytes=10 * GB, replayed_bytes=GB, phases=PHASES, rto_ms=152_000)
PHASE_TIMES = st.fixed_dictionaries(dict.fromkeys(PHASES, st.integers(0, 10**7)))
SIZES = st.integers(0, 10**13)
DRILLS = st.lists(
    st.builds(
        DrillTimes,
        st.integers(0, 300).map(lambda days: NOW - timedelta(days=days)),
        SIZES,
        SIZES,
        PHASE_TIMES,
        st.integers(0, 10**8),
    ),
    min_size=1,
    max_size=8,
)


def seconds(drills: list[DrillTimes], restored: int, replayed: int, waiting: int = 0) -> float:
    predicted = predict_rto(drills, restored, replayed, timedelta(seconds=waiting))
    assert predicted is not None
    return predicted.seconds


def test_without_a_drill_nothing_is_predicted() -> None:
    assert predict_rto([], GB, GB) is None


def test_the_same_size_takes_as_long_as_it_took_without_the_checks() -> None:
    assert seconds([DRILL], 10 * GB, GB) == pytest.approx(152)


def test_ten_times_the_bytes_take_ten_times_as_long_but_for_the_rest() -> None:
    assert seconds([DRILL], 100 * GB, GB) == pytest.approx(2 + 1000 + 50)
    assert seconds([DRILL], 10 * GB, 10 * GB) == pytest.approx(2 + 100 + 500)


def test_one_odd_drill_decides_nothing_but_the_spread() -> None:
    slow = replace(DRILL, phases={**PHASES, "fetch_apply": 900_000})
    predicted = predict_rto([DRILL, slow, DRILL], 10 * GB, GB)
    assert predicted is not None
    assert predicted.seconds == pytest.approx(152)
    assert (predicted.fastest, predicted.slowest) == pytest.approx((152, 952))


def test_a_drill_that_replayed_next_to_nothing_says_nothing_of_the_rate() -> None:
    """Starting the server took its two seconds: a terabyte does not take that for each megabyte."""
    quick = replace(
        DRILL, replayed_bytes=1 << 20, phases={"fetch_apply": 100_000, "recovery": 2000}
    )
    assert seconds([quick], 10 * GB, 50 * GB) == pytest.approx(100 + 2 + 1000)
    assert seconds([quick, DRILL], 10 * GB, 50 * GB) == pytest.approx(101 + 50 * 50)


def test_old_drills_no_longer_count() -> None:
    old = replace(DRILL, at=NOW - timedelta(days=99), phases={"fetch_apply": 10**9})
    new = [replace(DRILL, at=NOW - timedelta(days=day)) for day in range(DRILLS_CONSIDERED)]
    assert seconds([old, *new], 10 * GB, GB) == pytest.approx(152)


@given(DRILLS, SIZES, SIZES, SIZES, SIZES, st.integers(0, 10**6))
def test_more_to_move_or_to_wait_for_never_takes_less(
    drills: list[DrillTimes], restored: int, replayed: int, more: int, log: int, wait: int
) -> None:
    before = predict_rto(drills, restored, replayed)
    after = predict_rto(drills, restored + more, replayed + log, timedelta(seconds=wait))
    assert before is not None
    assert after is not None
    assert before.fastest <= before.seconds <= before.slowest
    for less, longer in (
        (before.fastest, after.fastest),
        (before.seconds, after.seconds),
        (before.slowest, after.slowest),
    ):
        assert longer >= less + wait - 1e-6 * longer


@given(DRILLS, st.randoms())
def test_the_order_of_the_reports_does_not_matter(drills: list[DrillTimes], random: Random) -> None:
    one_at_each_time = list({drill.at: drill for drill in drills}.values())
    shuffled = random.sample(one_at_each_time, len(one_at_each_time))
    assert predict_rto(shuffled, GB, GB) == predict_rto(one_at_each_time, GB, GB)


def test_a_broken_objective_is_told_as_measured_and_as_predicted() -> None:
    predicted = predict_rto([DRILL], 1000 * GB, GB, timedelta(hours=15))
    found = list(rto_findings(predicted, DRILL, timedelta(minutes=2), NOW))
    assert [(one.code, one.object) for one in found] == [
        (FindingCode.RTO_BROKEN, "measured"),
        (FindingCode.RTO_BROKEN, "predicted"),
    ]
    assert found[0].fact == "the last drill took 2.5 min, promised are 2.0 min"
    assert "900.0 min of it until archived blobs can be read" in found[1].fact
    assert found[1].evidence["predicted_seconds"] == "64052"
    assert list(rto_findings(predicted, DRILL, timedelta(days=1), NOW)) == []
    assert list(rto_findings(None, None, timedelta(0), NOW)) == []
