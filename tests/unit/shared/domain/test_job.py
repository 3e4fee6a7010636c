"""Folding a job's reports: any order, any repetition, one result."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from random import Random

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


def test_a_job_without_reports_is_requested_and_one_that_reported_is_running() -> None:
    assert JobProgress().state is JobState.REQUESTED
    heard = fold_all([JobReport(JobEventKind.PROGRESS, 2, NOON, done_bytes=5, total_bytes=10)])
    assert (heard.state, heard.attempt) == (JobState.RUNNING, 2)
    assert not heard.state.terminal
