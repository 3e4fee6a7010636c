"""A host is lost for good, and what its commits come to: the runs of `python -m local rpo`."""

import pytest

from local.rpo.report import Loss
from local.rpo.series import Series, run_series

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def heard(_text: str) -> None:
    pass


def test_a_server_that_dies_with_its_disk_costs_a_moment() -> None:
    report = run_series(Series(1, Loss.SERVER, synchronous=False, flush_s=10), heard)
    # A heartbeat every fifth of a second, and a receiver that had everything but the last bytes.
    assert 0 <= report.rpo_s.max < 2


def test_nothing_acknowledged_is_lost_with_server_and_receiver_when_commits_wait() -> None:
    report = run_series(Series(1, Loss.BOTH, synchronous=True, flush_s=0.5), heard)
    assert report.lost_commits == 0
    assert 0 <= report.rpo_s.max < 2
