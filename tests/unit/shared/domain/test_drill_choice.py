"""Which backup an extended drill restores."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.drill_choice import drawn, older_backups
from shared.domain.needed_until import GuardedBackup
from shared.settings import Retention

DAY = timedelta(days=1)
START = datetime(2026, 9, 7, 3, tzinfo=UTC)
TERMS = Retention(full_days=28, incremental_days=7, wal_days=1, keep_last=1, weekly=0, monthly=0)


def full(day: int, *, good: bool = True) -> GuardedBackup:
    return GuardedBackup(_label(day, BackupKind.FULL), good=good)


def incremental(day: int, parent: GuardedBackup, *, good: bool = True) -> GuardedBackup:
    return GuardedBackup(_label(day, BackupKind.INCREMENTAL), parent.label, good)


def _label(day: int, kind: BackupKind) -> BackupLabel:
    return BackupLabel.new(kind, START + day * DAY, lambda letters: letters[0])


def older(*backups: GuardedBackup, now: float, newest: GuardedBackup) -> list[BackupLabel]:
    return older_backups(backups, TERMS, START + now * DAY, newest.label)


def test_every_sound_backup_before_the_newest_has_a_lot() -> None:
    first, second, third = full(0), full(7), full(14)
    child = incremental(10, second)
    every = (first, second, child, third)
    assert older(*every, now=14, newest=third) == [first.label, second.label, child.label]
    assert older(third, now=14, newest=third) == []


def test_what_is_not_sound_down_to_its_full_backup_has_none() -> None:
    bad, newest = full(0, good=False), full(7)
    broken, orphan = incremental(1, bad), incremental(2, full(-1))
    middle = incremental(4, good := full(3), good=False)
    top = incremental(5, middle)
    circle = GuardedBackup(_label(6, BackupKind.INCREMENTAL), _label(6, BackupKind.INCREMENTAL))
    every = (bad, broken, orphan, good, middle, top, circle, newest)
    assert older(*every, now=5, newest=newest) == [good.label]


def test_what_may_expire_beneath_the_drill_has_none() -> None:
    first, second, newest = full(0), full(7), full(20)
    every = (first, second, newest)
    assert older(*every, now=25.9, newest=newest) == [first.label, second.label]
    assert older(*every, now=26.1, newest=newest) == [second.label]


def test_the_drill_s_id_draws_one_the_same_each_time_and_each_as_often_as_the_others() -> None:
    labels = [full(day).label for day in range(4)]
    assert drawn(labels, "a") == drawn(labels, "a")
    times = Counter(drawn(labels, str(number)) for number in range(2000))
    assert set(times) == set(labels)
    assert all(abs(count - 500) < 100 for count in times.values())  # five standard deviations
