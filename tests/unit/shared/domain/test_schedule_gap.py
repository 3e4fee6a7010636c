"""The longest time between two backups of a schedule."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.schedule_gap import longest_gap

NOW = datetime(2026, 11, 22, 12, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("crons", "gap"),
    [
        (["0 3 * * 0", "0 2 * * *"], timedelta(days=1)),
        (["0 3 * * 0", "0 2 * * 1-6"], timedelta(hours=25)),
        (["0 3 * * 0", "0 2 * * 1-5"], timedelta(hours=49)),
        (["* * * * *"], timedelta(minutes=1)),
        (["* * * * 1-5"], timedelta(days=2, minutes=1)),
        (["0 3 1 * *"], timedelta(days=31)),
        (["0 3 1 1 *"], timedelta(days=366)),
        ([], timedelta(days=366)),
    ],
)
def test_backups_of_a_schedule_come_so_far_apart(crons: list[str], gap: timedelta) -> None:
    assert longest_gap(crons, NOW) == gap
