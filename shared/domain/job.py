"""Jobs: what may be asked of the container host, and how its reports fold into one state.

Events arrive at least once and in any order (queues promise no more). `fold` is idempotent and
commutative: applying any permutation, with any repetitions, of a set of events gives one result.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import reduce


class JobVerb(StrEnum):
    BACKUP = "backup"
    VERIFY = "verify"
    DRILL = "drill"
    RESTORE = "restore"
    EXPIRE = "expire"
    MAINTENANCE = "maintenance"
    AUDIT = "audit"


class JobState(StrEnum):
    REQUESTED = "requested"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        return self in {JobState.SUCCEEDED, JobState.FAILED}


class JobEventKind(StrEnum):
    STARTED = "started"
    PROGRESS = "progress"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class JobReport:
    """One event of one job, without its transport. `result` is a label or report id."""

    kind: JobEventKind
    attempt: int
    at: datetime
    succeeded: bool | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    result: str | None = None
    error_code: str | None = None
    error_fact: str | None = None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What is known of a job; the neutral element is `JobProgress()`."""

    attempt: int = 0
    started_at: datetime | None = None
    heard_at: datetime | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    finished: JobReport | None = None

    @property
    def state(self) -> JobState:
        if self.finished is not None:
            return JobState.SUCCEEDED if self.finished.succeeded else JobState.FAILED
        return JobState.RUNNING if self.started_at is not None else JobState.REQUESTED


def fold(progress: JobProgress, report: JobReport) -> JobProgress:
    """A success is final; among failures the highest attempt, then the later time, speaks."""
    merged = replace(
        progress,
        attempt=max(progress.attempt, report.attempt),
        started_at=_earliest(progress.started_at, report.at),
        heard_at=_latest(progress.heard_at, report.at),
        done_bytes=max(progress.done_bytes, report.done_bytes),
        total_bytes=max(progress.total_bytes, report.total_bytes),
    )
    if report.kind is not JobEventKind.FINISHED:
        return merged
    if progress.finished is None or _weight(report) > _weight(progress.finished):
        return replace(merged, finished=report)
    return merged


def fold_all(reports: Iterable[JobReport]) -> JobProgress:
    return reduce(fold, reports, JobProgress())


def _weight(report: JobReport) -> tuple[bool, int, datetime, str, str, str, int, int]:
    # What follows the time breaks ties of one instant, so that the order of arrival never does.
    return (
        bool(report.succeeded),
        report.attempt,
        report.at,
        report.result or "",
        report.error_code or "",
        report.error_fact or "",
        report.done_bytes,
        report.total_bytes,
    )


def _earliest(known: datetime | None, seen: datetime) -> datetime:
    return seen if known is None else min(known, seen)


def _latest(known: datetime | None, seen: datetime) -> datetime:
    return seen if known is None else max(known, seen)
