"""Where one can get to when not to the target: options to paste, each of which would succeed."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Final, assert_never

from shared.domain.lsn import LSN_MAX, Lsn
from shared.domain.recovery_choice import Option, Question
from shared.domain.recovery_path import BackupCandidate, Reach, Ways
from shared.domain.recovery_stop import restore_points, written
from shared.domain.recovery_target import (
    RecoveryTarget,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
)
from shared.domain.recovery_window import RecoveryWindow, windows_on

_NAMES_SHOWN: Final = 5
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)

Answer = Callable[[Question], Option | None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What failed, where it was looked for, and how to find out what comes of another question."""

    question: Question
    ways: Ways
    backups: Sequence[BackupCandidate]
    answer: Answer


def nearest(
    ways: Ways, backups: Sequence[BackupCandidate], question: Question, answer: Answer
) -> str:
    """Sentences. `answer` says what comes of a question."""
    allowed = [backup for backup in backups if question.label in {None, backup.label}]
    asked = _Asked(question, ways, allowed, answer)
    said = [_sentence("It is reached with", _elsewhere(asked), answer), *_around(asked)]
    if not any(said):
        everything = chain([Question(ToLatest())], _ends(backups))
        said = [_sentence("What can be reached is", everything, answer)]
    return " ".join(filter(None, said)) or "No backup reaches its own end: take a new one."


def as_options(question: Question) -> str:
    """As a person types it."""
    words = [*_target_words(question.target)]
    if question.label is not None:
        words += ["--label", question.label]
    if question.timeline is not None:
        words += ["--timeline", str(question.timeline)]
    return shlex.join(words)


def _target_words(target: RecoveryTarget) -> Iterator[str]:
    match target:
        case ToTime(time):
            yield from ("--to-time", written(time))
        case ToLsn(lsn):
            yield from ("--to-lsn", str(lsn))
        case ToXid(xid):
            yield from ("--to-xid", str(xid))
        case ToName(name):
            yield from ("--to-name", name)
        case ToImmediate():
            yield "--immediate"
        case ToLatest():
            yield "--to-latest"
        case _:
            assert_never(target)
    if isinstance(target, ToTime | ToLsn | ToXid) and not target.inclusive:
        yield "--exclusive"


def _sentence(begin: str, questions: Iterable[Question], answer: Answer, limit: int = 1) -> str:
    """With the first of the questions that succeed; empty when none does."""
    good = (as_options(one) for one in questions if answer(one) is not None)
    found = list(islice(good, limit))
    return f"{begin} {', '.join(found)}." if found else ""


def _elsewhere(asked: _Asked) -> Iterator[Question]:
    """The same target from another backup, or on another timeline."""
    target, label = asked.question.target, asked.question.label
    if label is not None:
        yield Question(target, None, asked.question.timeline)
    if asked.question.timeline is not None:
        for other in dict.fromkeys((label, None)):
            option = asked.answer(Question(target, other))
            if option is not None:
                yield Question(target, other, option.timeline)


def _around(asked: _Asked) -> Iterator[str]:
    answer = asked.answer
    match asked.question.target:
        case ToTime() | ToLsn():
            yield _sentence("The latest before it is", _before(asked), answer)
            yield _sentence("The earliest after it is", _after(asked), answer)
        case ToName():
            yield _sentence("The newest that exist are", _names(asked), answer, _NAMES_SHOWN)
        case ToXid():
            yield _sentence("If the backup is older, it is reached with", _unsure(asked), answer)
        case ToLatest():
            yield _sentence("The latest before the gap is", _before(asked), answer)
        case ToImmediate():
            return


def _before(asked: _Asked) -> Iterator[Question]:
    """The ends of windows that end before the target, the latest first."""
    target = asked.question.target

    def end(window: RecoveryWindow) -> int:
        commit = window.last_commit or window.started_at
        return _place(target, window.end, max(commit, window.started_at))

    for window in sorted(_windows(asked), key=end, reverse=True):
        if end(window) > _wanted(target):
            continue
        label, timeline = asked.question.label, _timeline(asked, window)
        if not window.broken:
            yield Question(ToLatest(), label, timeline)
        if window.last_commit is not None:
            yield Question(ToTime(window.last_commit, inclusive=False), label, timeline)
        yield Question(ToImmediate(), window.backups[-1])


def _after(asked: _Asked) -> Iterator[Question]:
    """The beginnings of windows that begin after the target, the earliest first."""
    target = asked.question.target

    def start(window: RecoveryWindow) -> int:
        return _place(target, window.start, window.started_at)

    for window in sorted(_windows(asked), key=start):
        if start(window) > _wanted(target):
            same = isinstance(target, ToTime)
            first = ToTime(window.started_at) if same else ToLsn(window.start)
            yield Question(first, asked.question.label, _timeline(asked, window))
            yield Question(ToImmediate(), window.backups[0])


def _place(target: RecoveryTarget, lsn: Lsn, time: datetime) -> int:
    """A place in the log, on the scale of the target."""
    return (time - _EPOCH) // _TICK if isinstance(target, ToTime) else lsn


def _wanted(target: RecoveryTarget) -> int:
    if isinstance(target, ToTime):
        return _place(target, Lsn(0), target.time)
    return target.lsn if isinstance(target, ToLsn) else LSN_MAX


def _names(asked: _Asked) -> Iterator[Question]:
    """Restore points in the windows, the newest first."""
    first = {backup.label: backup for backup in asked.backups}
    reaches = [
        asked.ways.reach(first[window.backups[0]], window.timeline) for window in _windows(asked)
    ]
    points = {
        (point.time, point.name)
        for reach in reaches
        if isinstance(reach, Reach)
        for point in restore_points(reach, asked.ways.logs)
    }
    names = dict.fromkeys(name for _, name in sorted(points, reverse=True))
    for name in names:
        yield Question(ToName(name), asked.question.label, asked.question.timeline)


def _unsure(asked: _Asked) -> Iterator[Question]:
    """Backups that do not say which transactions they hold, the newest first."""
    for backup in sorted(asked.backups, key=lambda one: one.finished_at, reverse=True):
        if backup.next_xid is None:
            yield Question(asked.question.target, backup.label, asked.question.timeline)


def _ends(backups: Sequence[BackupCandidate]) -> Iterator[Question]:
    for backup in sorted(backups, key=lambda one: one.finished_at, reverse=True):
        yield Question(ToImmediate(), backup.label)


def _windows(asked: _Asked) -> Iterator[RecoveryWindow]:
    for window in windows_on(asked.ways, asked.backups):
        if asked.question.timeline in {None, window.timeline}:
            yield window


def _timeline(asked: _Asked, window: RecoveryWindow) -> int | None:
    """Only where there is a choice."""
    return window.timeline if len(asked.ways.paths) > 1 else None
