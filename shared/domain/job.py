"""Jobs: what may be asked of the container host, and how its reports fold into one state.

Events arrive at least once and in any order (queues promise no more). `fold` is idempotent and
commutative: applying any permutation, with any repetitions, of a set of events gives one result.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import Final, NamedTuple

from shared.errors import JobLost


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
    """`released`: the attempt ended without a result, and the queue has the message again."""

    STARTED = "started"
    PROGRESS = "progress"
    RELEASED = "released"
    FINISHED = "finished"


class Run(NamedTuple):
    """One attempt by one worker. Whoever has the higher token came later, whatever it counted."""

    token: int = 0
    attempt: int = 0


_NO_RUN: Final = Run()


@dataclass(frozen=True, slots=True)
class JobReport:
    """One event of one job, without its transport. `result` is a label or report id.

    `token` is the fencing token of the lease under which the job runs; None before it has one.
    """

    kind: JobEventKind
    attempt: int
    at: datetime
    succeeded: bool | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    result: str | None = None
    error_code: str | None = None
    error_fact: str | None = None
    token: int | None = None

    @property
    def run(self) -> Run:
        return Run(self.token or 0, self.attempt)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What is known of a job; the neutral element is `JobProgress()`.

    `heard_at`, `done_bytes` and `total_bytes` are those of the newest `run`: a worker whose lease
    went to another may still talk, but no longer counts. `released` is the newest run that ended
    without a result.
    """

    attempt: int = 0
    started_at: datetime | None = None
    heard_at: datetime | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    finished: JobReport | None = None
    run: Run = _NO_RUN
    released: Run = _NO_RUN

    @property
    def token(self) -> int | None:
        """The newest fencing token heard of."""
        return self.run.token or None

    @property
    def state(self) -> JobState:
        """REQUESTED also means: back in the queue, for another attempt."""
        if self.finished is not None and self.finished.succeeded:
            return JobState.SUCCEEDED
        if self.finished is not None and not self.has_overtaken(self.finished):
            return JobState.FAILED
        waits = self.started_at is None or _NO_RUN != self.released >= self.run
        return JobState.REQUESTED if waits else JobState.RUNNING

    @property
    def lost(self) -> bool:
        """Given up because its worker fell silent, and not heard of since."""
        return (
            self.state is JobState.FAILED
            and self.finished is not None
            and self.finished.error_code == JobLost.code
        )

    def has_overtaken(self, report: JobReport) -> bool:
        """Whether somebody with a newer token has begun: then the report's worker has no say."""
        return report.token is not None and report.token < self.run.token


def fold(progress: JobProgress, report: JobReport) -> JobProgress:
    """A success is final; among failures the newest token, attempt and time speak, in this order.

    What no lease fences comes before what one does: it is said of the job, not of a run.
    """
    merged = _of_newest_run(progress, report)
    return replace(
        merged,
        attempt=max(progress.attempt, report.attempt),
        started_at=_earliest(progress.started_at, report.at),
        finished=_weightier(progress.finished, report),
        released=_latest_release(progress.released, report),
    )


def _of_newest_run(progress: JobProgress, report: JobReport) -> JobProgress:
    if report.run < progress.run:
        return progress
    known = progress if report.run == progress.run else JobProgress()
    return replace(
        progress,
        run=report.run,
        heard_at=_latest(known.heard_at, report.at),
        done_bytes=max(known.done_bytes, report.done_bytes),
        total_bytes=max(known.total_bytes, report.total_bytes),
    )


def _weightier(known: JobReport | None, report: JobReport) -> JobReport | None:
    if report.kind is not JobEventKind.FINISHED:
        return known
    return report if known is None or _weight(report) > _weight(known) else known


def _latest_release(known: Run, report: JobReport) -> Run:
    return max(known, report.run) if report.kind is JobEventKind.RELEASED else known


def fold_all(reports: Iterable[JobReport]) -> JobProgress:
    return reduce(fold, reports, JobProgress())


def _weight(report: JobReport) -> tuple[bool, bool, Run, datetime, str, str, str, int, int]:
    # What follows the time breaks ties of one instant, so that the order of arrival never does.
    return (
        bool(report.succeeded),
        report.token is None,
        report.run,
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
