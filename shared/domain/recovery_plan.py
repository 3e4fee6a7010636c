"""Planning a recovery: which backup, which timeline, which WAL; or every reason why there is none.

Pure: what the backups' documents and one listing of the archive say goes in. PostgreSQL is never
left to choose a timeline, and never started for a target that is known to be out of reach.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.domain.recovery_choice import (
    Option,
    Question,
    Weighed,
    grouped,
    parted_at,
    preferred,
    weigh,
)
from shared.domain.recovery_hint import nearest
from shared.domain.recovery_path import BackupCandidate, WalPart, Ways, files_until
from shared.domain.recovery_stop import last_commit, written
from shared.domain.recovery_target import RecoveryTarget, ToLatest
from shared.domain.recovery_window import RecoveryWindow, recovery_windows, window_of
from shared.domain.wal_inventory import ListedArchive
from shared.domain.wal_segment import segment_name
from shared.errors import Refused

__all__ = [
    "BackupCandidate",
    "RecoveryPlan",
    "RecoveryWindow",
    "TargetUnreachable",
    "WalPart",
    "plan_recovery",
    "recovery_windows",
]


class TargetUnreachable(Refused):
    """No backup and WAL reach the target; the fact lists every reason, the hint what can be."""

    code = "target-unreachable"
    hint = "Look at what can be reached: the end of each backup, and the WAL behind it."


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """Where to begin, where to go, and what PostgreSQL will ask for on the way.

    `path` begins with the backup's timeline at its start. `segments` must exist; PostgreSQL asks
    for them in this order. `wal_bytes` is what is replayed at most, from the start of the backup;
    `wal_stored_bytes` what is fetched. `window` is where else this backup's log leads.
    """

    backup: BackupCandidate
    target: RecoveryTarget
    timeline: int
    path: tuple[WalPart, ...]
    segments: tuple[str, ...]
    wal_bytes: int
    wal_stored_bytes: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    window: RecoveryWindow


def plan_recovery(
    backups: Sequence[BackupCandidate],
    archive: ListedArchive,
    target: RecoveryTarget,
    *,
    label: str | None = None,
    timeline: int | None = None,
) -> RecoveryPlan:
    """With the newest backup that serves, on the newest timeline that reaches the target.

    Raises TargetUnreachable.
    """
    ways, question = Ways.of(archive, backups), Question(target, label, timeline)

    def answer(other: Question) -> Option | None:
        options = weigh(ways, backups, other).options
        return preferred(ways, other, options) if options else None

    weighed = weigh(ways, backups, question)
    if not weighed.options:
        reasons = [*_missing(ways, backups, question), *grouped(weighed.refusals)]
        raise TargetUnreachable(
            f"{target} cannot be reached: {'; '.join(reasons)}",
            hint=nearest(ways, backups, question, answer),
        )
    chosen = preferred(ways, question, weighed.options)
    return _plan(ways, backups, question, weighed, chosen)


def _missing(ways: Ways, backups: Sequence[BackupCandidate], question: Question) -> Iterator[str]:
    """What was named and does not exist, or was not named because nothing leads to it."""
    if not backups:
        yield "there is no backup"
    elif question.label and all(backup.label != question.label for backup in backups):
        yield f"there is no backup {question.label}"
    if question.timeline is None:
        yield from _lost(ways, max(ways.paths, default=0))
    elif question.timeline in ways.paths:
        return
    elif question.timeline in ways.logs:
        yield f"the archive has no history of timeline {question.timeline}"
    else:
        yield f"the archive has no timeline {question.timeline}"


def _lost(ways: Ways, timeline: int) -> Iterator[str]:
    """Newer timelines that no way leads to: what was committed there cannot be recovered."""
    for newer in sorted(ways.logs.keys() - ways.paths.keys()):
        if newer > timeline:
            yield (
                f"timeline {newer} is newer, and out of reach: the archive has its log, but no "
                "history that tells where it begins"
            )


def _plan(
    ways: Ways,
    backups: Sequence[BackupCandidate],
    question: Question,
    weighed: Weighed,
    chosen: Option,
) -> RecoveryPlan:
    backup, stop = chosen.reach.backup, chosen.stop
    files = list(files_until(chosen.reach, ways.logs, stop.end))
    first, *others = chosen.reach.path
    windows_of = [item for item in backups if item is backup or not item.suspect]
    return RecoveryPlan(
        backup=backup,
        target=question.target,
        timeline=chosen.timeline,
        path=(WalPart(first.timeline, backup.start_lsn, first.end), *others),
        segments=tuple(segment_name(line, held.start, ways.segment_size) for line, held in files),
        wal_bytes=stop.end - backup.start_lsn,
        wal_stored_bytes=sum(blob.stored_bytes for _, held in files for blob in held.blobs),
        reasons=tuple(_reasons(question, weighed, chosen)),
        warnings=(*stop.warnings, *_warnings(ways, question, weighed, chosen)),
        window=window_of(ways, windows_of, chosen.reach),
    )


def _reasons(question: Question, weighed: Weighed, chosen: Option) -> Iterator[str]:
    backup, timeline = chosen.reach.backup, chosen.timeline
    if question.label:
        yield f"backup {backup.label}: as asked"
    else:
        yield f"backup {backup.label}: the newest that reaches the target on timeline {timeline}"
    if question.timeline == timeline:
        yield f"timeline {timeline}: as asked"
    elif question.timeline is not None:
        yield (
            f"timeline {timeline}: it holds what timeline {question.timeline} lacks up to the "
            "target, behind which it left that one"
        )
    elif len(weighed.options) > 1:
        best = (
            "where the newest commit is" if isinstance(question.target, ToLatest) else "the newest"
        )
        yield f"timeline {timeline}: {best} of those that reach the target"
    else:
        yield f"timeline {timeline}: no other reaches the target"
    yield from grouped([item for item in weighed.refusals if item.timeline >= timeline])


def _warnings(ways: Ways, question: Question, weighed: Weighed, chosen: Option) -> Iterator[str]:
    backup = chosen.reach.backup
    if backup.suspect:
        yield f"backup {backup.label} is suspect: the server met damaged pages when it was taken"
    if question.timeline is not None:
        return
    for other in weighed.options:
        position = parted_at(ways, chosen, other)
        if position is not None:
            yield (
                f"timeline {other.timeline} reaches the target too{_newest_commit(ways, other)}; "
                f"it and timeline {chosen.timeline} part at {position}: "
                f"--timeline {other.timeline} follows it"
            )
    newer = {item.timeline for item in weighed.refusals if item.timeline > chosen.timeline}
    for timeline in sorted(newer - {other.timeline for other in weighed.options}):
        yield f"timeline {timeline} is newer, and does not reach the target"
    yield from _lost(ways, chosen.timeline)


def _newest_commit(ways: Ways, option: Option) -> str:
    commit = last_commit(option.reach, ways.logs)
    return f", with its last commit at {written(commit)}" if commit else ""
