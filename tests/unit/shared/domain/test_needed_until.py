"""Until when backups are needed: by age, by number, by rhythm, by hand, and by their children."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.needed_until import (
    FORESIGHT,
    GuardedBackup,
    NeededBackup,
    RetentionTerms,
    needed_backups,
)
from shared.settings import Retention

DAY = timedelta(days=1)
START = datetime(2026, 9, 7, 3, tzinfo=UTC)  # a Monday


@dataclass(frozen=True)
class Terms:
    """The settings' own defaults, with what a test changes; WAL for a day, so that age decides."""

    full_days: float = 28
    incremental_days: float = 7
    wal_days: float = 1
    keep_last: int = 1
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    hold: tuple[str, ...] = ()


def full(day: float, *, good: bool = True) -> GuardedBackup:
    return GuardedBackup(label(day, BackupKind.FULL), good=good)


def incremental(day: float, parent: GuardedBackup) -> GuardedBackup:
    return GuardedBackup(label(day, BackupKind.INCREMENTAL), parent.label)


def label(day: float, kind: BackupKind) -> BackupLabel:
    return BackupLabel.new(kind, START + day * DAY, lambda letters: letters[0])


def needed(
    *backups: GuardedBackup, now: float, terms: RetentionTerms | None = None
) -> dict[BackupLabel, NeededBackup]:
    found = needed_backups(backups, terms or Terms(), START + now * DAY)
    return {one.backup.label: one for one in found}


def end(found: dict[BackupLabel, NeededBackup], backup: GuardedBackup) -> float | None:
    """In days; None is for good."""
    until = found[backup.label].until
    return None if until is None else (until - START) / DAY


def test_the_settings_of_a_cluster_are_such_terms() -> None:
    one = full(0)
    assert end(needed(one, now=0.5, terms=Retention()), one) == 28.5


def test_a_backup_is_needed_while_it_is_young() -> None:
    old, new = full(0), full(20)
    found = needed(old, new, now=27)
    assert (end(found, old), end(found, new)) == (28, 48)
    assert list(needed(old, new, now=28)) == [new.label]


def test_a_parent_is_needed_as_long_as_any_child() -> None:
    base = full(0)
    first = incremental(10, base)
    second = incremental(26, first)
    lone = incremental(11, base)
    found = needed(base, first, second, lone, full(30), now=27)
    assert [end(found, one) for one in (base, first, second)] == [33, 33, 33]
    assert lone.label not in found
    assert found[base.label].carries == (base.label, first.label, lone.label, second.label)
    assert found[first.label].carries == (first.label, second.label)
    assert found[base.label].is_parent
    assert not found[second.label].is_parent


def test_one_of_the_last_good_ones_is_needed_for_some_time_to_come() -> None:
    """Whoever takes no backups any more shall not lose the last ones to a rule unwarned."""
    found = needed(full(0), full(7), full(3, good=False), now=90, terms=Terms(keep_last=2))
    assert {(one.until - START) / DAY for one in found.values() if one.until} == {
        90 + FORESIGHT / DAY
    }
    assert list(found) == [full(0).label, full(7).label]


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        (Terms(weekly=3), {0: 28, 3: 31, 7: 35, 14: 42}),  # shorter than the age: nothing new
        (Terms(weekly=8), {0: 56, 3: 31, 7: 63, 14: 70}),  # the first of each week
        (Terms(monthly=6), {0: 186, 3: 31, 7: 35, 14: 42}),
        (Terms(yearly=2), {0: 732, 3: 31, 7: 35, 14: 42}),
        (Terms(full_days=1, keep_last=1), {14: 22}),
    ],
)
def test_a_rhythm_keeps_the_first_good_full_backup_of_its_period(
    terms: Terms, kept: dict[int, float]
) -> None:
    fulls = [full(day) for day in (0, 3, 7, 14)]
    spoilt = full(-0.5, good=False)
    found = needed(spoilt, *fulls, now=15, terms=terms)
    found.pop(spoilt.label, None)
    assert {
        (one.backup.label.time - START) / DAY: end(found, one.backup) for one in found.values()
    } == kept


def test_the_promised_wal_begins_with_a_backup_that_is_older_than_it() -> None:
    """At 28 days of WAL a weekly full backup is needed until the next is as old: 35 days."""
    fulls = [full(day) for day in (0, 7, 14)]
    spoilt = full(10, good=False)
    found = needed(*fulls, spoilt, now=15, terms=Terms(wal_days=28))
    assert [end(found, one) for one in (*fulls, spoilt)] == [35, 42, 43, 38]


def test_what_is_newer_than_all_good_ones_may_yet_be_good() -> None:
    good, tried, untried = full(0), full(1, good=False), full(5, good=False)
    found = needed(good, tried, untried, now=40, terms=Terms(full_days=2))
    assert {end(found, one) for one in (tried, untried)} == {40 + FORESIGHT / DAY}
    assert list(needed(tried, good, full(6), now=40, terms=Terms(full_days=2))) == [full(6).label]


def test_what_a_person_holds_is_needed_for_good_and_so_is_its_parent() -> None:
    base = full(0)
    child = incremental(1, base)
    found = needed(base, child, now=500, terms=Terms(hold=(child.label.text,)))
    assert (end(found, base), end(found, child)) == (None, None)


def test_parents_that_are_unknown_or_stand_on_one_another_end_nowhere() -> None:
    orphan = GuardedBackup(label(0, BackupKind.INCREMENTAL), label(-1, BackupKind.FULL))
    one, other = label(1, BackupKind.INCREMENTAL), label(2, BackupKind.INCREMENTAL)
    circle = (GuardedBackup(one, other), GuardedBackup(other, one))
    found = needed(orphan, *circle, now=3)
    assert found[orphan.label].carries == (orphan.label,)
    assert found[one].carries == found[other].carries == (one, other)


@given(
    parents=st.lists(st.integers(-1, 20), min_size=1, max_size=12),
    days=st.floats(1, 40),
    now=st.integers(0, 60),
)
def test_nobody_is_needed_longer_than_its_parent(parents: list[int], days: float, now: int) -> None:
    """Whatever the chains look like: a parent outlives, and carries, all that stands on it."""
    backups: list[GuardedBackup] = []
    for day, parent in enumerate(parents):
        based = parent if 0 <= parent < day else None
        backups.append(full(day) if based is None else incremental(day, backups[based]))
    found = needed(*backups, now=now, terms=Terms(full_days=days, incremental_days=days / 2))
    for one in found.values():
        if one.backup.parent is not None:
            parent_needed = found[one.backup.parent]
            assert set(one.carries) < set(parent_needed.carries)
            assert one.until is not None
            assert parent_needed.until is not None
            assert parent_needed.until >= one.until
