"""Folding a job's reports: any order, any repetition, one result."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.job import (
    JobEventKind,
    JobProgress,
    JobReport,
    JobState,
    fold,
    fold_all,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@st.composite
def reports(draw: st.DrawFn) -> JobReport:
    kind = draw(st.sampled_from(JobEventKind))
    ended = kind is JobEventKind.FINISHED
    return JobReport(
        kind=kind,
        attempt=draw(st.integers(1, 3)),
        token=draw(st.sampled_from([None, 5, 6])),
        at=NOON + timedelta(seconds=draw(st.integers(0, 5))),
        succeeded=draw(st.booleans()) if ended else None,
        done_bytes=draw(st.integers(0, 9)),
        total_bytes=draw(st.integers(0, 9)),
        result=draw(st.sampled_from([None, "a", "b"])) if ended else None,
        error_code=draw(st.sampled_from([None, "x"])) if ended else None,
    )


@given(st.lists(reports(), max_size=6), st.randoms(use_true_random=False))
def test_d04_every_order_with_repetitions_folds_to_one_state(
    seen: list[JobReport], random: Random
) -> None:
    again = [*seen, *(report for report in seen if random.random() < 0.5)]
    random.shuffle(again)
    assert fold_all(again) == fold_all(seen)


@given(st.lists(reports(), max_size=6), reports())
def test_d03_folding_the_same_report_ten_times_is_folding_it_once(
    seen: list[JobReport], report: JobReport
) -> None:
    once = fold(fold_all(seen), report)
    assert reduce(fold, [report] * 10, once) == once


@given(st.lists(reports(), max_size=6))
def test_a_success_is_final(seen: list[JobReport]) -> None:
    success = JobReport(JobEventKind.FINISHED, 1, NOON, succeeded=True, result="label")
    assert fold_all([success, *seen]).state is JobState.SUCCEEDED


def test_finished_before_started_is_finished() -> None:
    finished = JobReport(JobEventKind.FINISHED, 1, NOON, succeeded=False, error_code="lease-held")
    started = JobReport(JobEventKind.STARTED, 1, NOON - timedelta(seconds=9))
    progress = fold_all([finished, started])
    assert progress.state is JobState.FAILED
    assert progress.state.terminal
    assert progress.started_at == started.at
    assert progress.heard_at == finished.at


def run(kind: JobEventKind, second: int, token: int | None, **more: Any) -> JobReport:
    return JobReport(kind, 1, NOON + timedelta(seconds=second), token=token, **more)


def test_s07_a_worker_that_was_overtaken_has_no_say_but_its_success_stands() -> None:
    progress, finished = JobEventKind.PROGRESS, JobEventKind.FINISHED
    newer = run(progress, 1, 6, done_bytes=10)
    stale = [
        run(progress, 50, 5, done_bytes=900),
        run(finished, 60, 5, succeeded=False, error_code="lease-lost"),
    ]

    folded = fold_all([newer, *stale])

    assert folded.state is JobState.RUNNING
    assert (folded.token, folded.done_bytes, folded.heard_at) == (6, 10, newer.at)
    assert [folded.has_overtaken(report) for report in (newer, *stale)] == [False, True, True]
    ended = fold(folded, run(finished, 70, 6, succeeded=False, error_code="postgres-gone"))
    assert ended.state is JobState.FAILED
    assert ended.finished is not None
    assert ended.finished.error_code == "postgres-gone"
    assert fold(ended, run(finished, 60, 5, succeeded=True)).state is JobState.SUCCEEDED


def test_b08_a_job_that_was_given_back_is_requested_until_the_next_attempt_is_heard_of() -> None:
    first = [
        JobReport(JobEventKind.STARTED, 1, NOON, token=5),
        JobReport(JobEventKind.RELEASED, 1, NOON, token=5, error_code="postgres-gone"),
    ]
    again = JobReport(JobEventKind.PROGRESS, 2, NOON, token=6)

    assert fold_all(first).state is JobState.REQUESTED
    assert fold_all(first[:1]).state is JobState.RUNNING
    assert fold_all([*first, again]).state is fold_all([again, *first]).state is JobState.RUNNING


def test_s06_only_a_job_that_was_given_up_is_lost() -> None:
    started = JobReport(JobEventKind.STARTED, 1, NOON)
    lost, failed = (
        JobReport(JobEventKind.FINISHED, 1, NOON, succeeded=False, error_code=code)
        for code in ("job-lost", "postgres-gone")
    )
    back = replace(lost, succeeded=True, error_code=None)
    assert [fold_all([started, end]).lost for end in (lost, failed)] == [True, False]
    assert not fold_all([lost, back]).lost


def test_a_job_without_reports_is_requested_and_one_that_reported_is_running() -> None:
    assert JobProgress().state is JobState.REQUESTED
    heard = fold_all([JobReport(JobEventKind.PROGRESS, 2, NOON, done_bytes=5, total_bytes=10)])
    assert (heard.state, heard.attempt) == (JobState.RUNNING, 2)
    assert not heard.state.terminal
