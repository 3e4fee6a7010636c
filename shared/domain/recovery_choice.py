"""Which timeline and which backup: every combination weighed, with a reason for each that fails.

The timeline comes first, for it decides what the result holds; the backup only decides how long it
takes. Of the backups that serve, the newest by position has the least to replay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from shared.domain.lsn import Lsn
from shared.domain.recovery_path import BackupCandidate, Path, Reach, Ways
from shared.domain.recovery_stop import Stop, last_commit, stop_of, tail_unknown
from shared.domain.recovery_target import RecoveryTarget, ToImmediate, ToLatest

_LABELS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; a label or timeline that is None leaves the choice to us."""

    target: RecoveryTarget
    label: str | None = None
    timeline: int | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """A backup that reaches the target on one timeline, and where."""

    reach: Reach
    stop: Stop

    @property
    def timeline(self) -> int:
        return self.reach.timeline


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a backup does not reach the target on one timeline."""

    timeline: int
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Weighed:
    """At most one option for a timeline, the newest timeline first, and what was refused."""

    options: tuple[Option, ...]
    refusals: tuple[Refusal, ...]


def weigh(ways: Ways, backups: Sequence[BackupCandidate], question: Question) -> Weighed:
    """Suspect backups serve only when they are named, or when no other does."""
    named = [backup for backup in backups if backup.label == question.label]
    good = [backup for backup in backups if not backup.suspect]
    suspect = [backup for backup in backups if backup.suspect]
    refusals: list[Refusal] = []
    for group in [named] if question.label else [good, suspect]:
        found = list(_weighed(ways, sorted(group, key=_newness, reverse=True), question))
        refusals += [item for item in found if isinstance(item, Refusal)]
        options = tuple(item for item in found if isinstance(item, Option))
        if options:
            return Weighed(options, tuple(refusals))
    return Weighed((), tuple(refusals))


def preferred(ways: Ways, question: Question, options: Sequence[Option]) -> Option:
    """The newest timeline. But "the latest" is where the newest commit is: on the timeline of a
    promotion that came to nothing it is not.
    """
    first = options[0]
    if isinstance(question.target, ToLatest):
        for other in options[1:]:
            if parted_at(ways, first, other) is not None and _is_newer(ways, other, first):
                first = other
    return first


def parted_at(ways: Ways, chosen: Option, other: Option) -> Lsn | None:
    """Where the timelines of two options part; None when `other` stops before that."""
    position = _parting(ways.paths[chosen.timeline], ways.paths[other.timeline])
    return position if position is not None and other.stop.bound > position else None


def grouped(refusals: Sequence[Refusal]) -> list[str]:
    """A sentence for each timeline and reason, which names its backups."""

    def key(refusal: Refusal) -> tuple[int, str]:
        return -refusal.timeline, refusal.reason

    return [
        f"timeline {-timeline}, {_named([refusal.label for refusal in group])}: {reason}"
        for (timeline, reason), group in groupby(sorted(refusals, key=key), key=key)
    ]


def _named(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return f"backup {labels[0]}"
    if len(labels) <= _LABELS_SHOWN:
        return f"backups {', '.join(labels)}"
    return f"backups {min(labels)} to {max(labels)}, {len(labels)} in number"


def _newness(backup: BackupCandidate) -> tuple[Lsn, datetime, str]:
    return backup.stop_lsn, backup.finished_at, backup.label


def _weighed(
    ways: Ways, backups: Sequence[BackupCandidate], question: Question
) -> Iterator[Option | Refusal]:
    """`backups` are the newest first."""
    if question.timeline is None:
        for timeline in sorted(ways.paths, reverse=True):
            yield from _on(ways, backups, question, timeline)
    elif question.timeline in ways.paths:
        found = list(_on(ways, backups, question, question.timeline))
        if not any(isinstance(item, Option) for item in found):
            yield from _through_a_child(ways, backups, question, question.timeline)
        yield from found


def _on(
    ways: Ways, backups: Sequence[BackupCandidate], question: Question, timeline: int
) -> Iterator[Option | Refusal]:
    """The refusals of newer backups, and then the first option."""
    for backup in backups:
        if isinstance(question.target, ToImmediate) and backup.timeline != timeline:
            continue
        found = _option(ways, backup, question, timeline)
        if isinstance(found, Option):
            yield found
            return
        yield Refusal(timeline, backup.label, found)


def _option(ways: Ways, backup: BackupCandidate, question: Question, timeline: int) -> Option | str:
    reach = ways.reach(backup, timeline)
    if isinstance(reach, str):
        return reach
    if question.timeline != timeline and not reach.enters_timeline:
        return f"the archive has no log of timeline {timeline}"
    named = backup.label == question.label
    stop = stop_of(question.target, reach, ways.logs, named=named)
    return stop if isinstance(stop, str) else Option(reach, stop)


def _through_a_child(
    ways: Ways, backups: Sequence[BackupCandidate], question: Question, timeline: int
) -> Iterator[Option]:
    """On a timeline that branched off behind the target: its first segment may hold what the one
    that was asked for lacks (PostgreSQL's 028_pitr_timelines).
    """
    if isinstance(question.target, ToImmediate | ToLatest):
        return
    for child, path in sorted(ways.paths.items(), reverse=True):
        left = next((part.end for part in path if part.timeline == timeline), None)
        if left is None:
            continue
        for backup in backups:
            found = _option(ways, backup, question, child)
            if isinstance(found, Option) and found.stop.bound <= left:
                yield found
                return


def _is_newer(ways: Ways, one: Option, other: Option) -> bool:
    """Whether its last commit is, beyond doubt, by the servers' clocks."""
    if any(tail_unknown(option.reach, ways.logs) for option in (one, other)):
        return False
    mine, theirs = (last_commit(option.reach, ways.logs) for option in (one, other))
    return mine is not None and (theirs is None or mine > theirs)


def _parting(one: Path, other: Path) -> Lsn | None:
    """Up to where two paths are the same log; None when they are one."""
    for mine, theirs in zip(one, other, strict=False):
        if mine.timeline != theirs.timeline:
            return mine.start
        if mine.end != theirs.end:
            return min(end for end in (mine.end, theirs.end) if end is not None)
    return None
