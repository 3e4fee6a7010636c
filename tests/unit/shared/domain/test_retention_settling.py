"""A shorter policy beside longer ones of the last days."""

from shared.domain.kept_backup import RetentionPolicy
from shared.domain.retention_settling import in_force

NOW = RetentionPolicy(full_days=2.8, keep_last=3, weekly=4, holds={"new"})


def test_of_each_promise_the_longest_counts() -> None:
    found = in_force(NOW, [RetentionPolicy(full_days=28, keep_last=1, monthly=6)], {"new"})

    assert (found.full_days, found.keep_last) == (28, 3)
    assert (found.weekly, found.monthly) == (4, 6)
    assert found.deletions_per_run == NOW.deletions_per_run


def test_a_longer_policy_counts_at_once() -> None:
    assert in_force(NOW, [RetentionPolicy(1, 1, 1, 1)], {"new"}) == NOW


def test_a_hold_that_was_taken_off_counts_while_its_backup_is_there() -> None:
    earlier = RetentionPolicy(holds={"taken-off", "mistyped"})

    assert in_force(NOW, [earlier], {"taken-off", "new"}).holds == {"taken-off", "new"}
    lost = RetentionPolicy(holds={"typo"})
    assert in_force(lost, [], {"new"}).holds == {"typo"}, "the plan refuses what holds nothing"
