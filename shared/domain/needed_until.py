"""Until when a kept backup is needed: what retention wants of it, and whoever stands on it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from shared.domain.backup import BackupKind, BackupLabel

# One of the last good backups is needed as long as no newer one comes, and nobody knows how long
# that is: so much is foreseen, so that a guard warns before the day.
FORESIGHT: Final = timedelta(days=7)
# Sorts before every label.
_NO: Final = BackupLabel("")


class RetentionTerms(Protocol):
    """What `[cluster.retention]` says of time; ages in days, rhythms in numbers of periods."""

    @property
    def full_days(self) -> float: ...
    @property
    def incremental_days(self) -> float: ...
    @property
    def wal_days(self) -> float: ...
    @property
    def keep_last(self) -> int: ...
    @property
    def weekly(self) -> int: ...
    @property
    def monthly(self) -> int: ...
    @property
    def yearly(self) -> int: ...
    @property
    def hold(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class GuardedBackup:
    """A committed backup, as old as its label says; `parent` is the one that it builds on."""

    label: BackupLabel
    parent: BackupLabel | None = None
    good: bool = True

    @property
    def good_full(self) -> bool:
        return self.good and self.label.kind is BackupKind.FULL


@dataclass(frozen=True, slots=True)
class NeededBackup:
    """`until` None means for good. `carries`: itself and all backups that stand on it."""

    backup: GuardedBackup
    until: datetime | None
    carries: tuple[BackupLabel, ...]

    @property
    def is_parent(self) -> bool:
        return len(self.carries) > 1


def needed_backups(
    backups: Iterable[GuardedBackup], terms: RetentionTerms, now: datetime
) -> tuple[NeededBackup, ...]:
    """Those that are still needed, oldest first; a parent as long as any of its children."""
    known = {one.label: one for one in sorted(backups, key=lambda one: one.label)}
    own = _own_ends(tuple(known.values()), terms, now)
    until, carried = dict(own), {label: {label} for label in known}
    for label, end in own.items():
        for ancestor in _ancestors(known, label):
            until[ancestor] = later(until[ancestor], end)
            carried[ancestor].add(label)
    return tuple(
        NeededBackup(one, end, tuple(sorted(carried[label])))
        for label, one in known.items()
        if (end := until[label]) is None or end > now
    )


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """None is for good, later than any time."""
    return None if one is None or other is None else max(one, other)


def _ancestors(
    known: Mapping[BackupLabel, GuardedBackup], label: BackupLabel
) -> Iterator[BackupLabel]:
    """Those that are known; parents that somebody made up in a circle come to an end."""
    seen = {label}
    while (parent := known[label].parent) and parent in known and parent not in seen:
        yield parent
        seen.add(parent)
        label = parent


def _own_ends(
    known: Sequence[GuardedBackup], terms: RetentionTerms, now: datetime
) -> dict[BackupLabel, datetime | None]:
    """Without regard to children."""
    until = {one.label: _age_ends(one.label, terms) for one in known}
    fulls = [one.label for one in known if one.good_full]
    untried = [one.label for one in known if not one.good and one.label > max(fulls, default=_NO)]
    for label in (*fulls[-terms.keep_last :], *untried):
        until[label] = later(until[label], now + FORESIGHT)
    for label, end in (*_rhythms(fulls, terms, now), *_first_of_wal(fulls, terms, now)):
        until[label] = later(until[label], end)
    return until


def _age_ends(label: BackupLabel, terms: RetentionTerms) -> datetime | None:
    if label.text in terms.hold:
        return None
    full = label.kind is BackupKind.FULL
    return label.time + timedelta(days=terms.full_days if full else terms.incremental_days)


def _first_of_wal(
    fulls: Sequence[BackupLabel], terms: RetentionTerms, now: datetime
) -> Iterator[tuple[BackupLabel, datetime]]:
    """The promised WAL begins with the newest good full backup that is older than it, and so each
    is needed until the next one is as old. The next of the newest is not even there yet.
    """
    following = [*(label.time for label in fulls[1:]), now]
    for label, successor in zip(fulls, following, strict=False):
        yield label, successor + timedelta(days=terms.wal_days)


def _rhythms(
    fulls: Sequence[BackupLabel], terms: RetentionTerms, now: datetime
) -> Iterator[tuple[BackupLabel, datetime]]:
    """The first good full backup of each of the newest weeks, months and years."""
    wanted = (
        ("%G-%V", terms.weekly, timedelta(weeks=1)),
        ("%Y-%m", terms.monthly, timedelta(days=31)),
        ("%Y", terms.yearly, timedelta(days=366)),
    )
    for period, count, length in wanted:
        firsts: dict[str, BackupLabel] = {}
        for label in fulls:
            firsts.setdefault(label.time.strftime(period), label)
        for label in list(firsts.values())[-count:] if count else ():
            yield label, max(label.time + count * length, now + FORESIGHT)
