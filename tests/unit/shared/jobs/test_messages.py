"""Messages are read by their models alone: what does not fit is refused with the first reason."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupKind
from shared.domain.job import JobEventKind, JobVerb
from shared.errors import MessageInvalid
from shared.jobs.messages import (
    BACKUP_QUEUE,
    MAX_MESSAGE,
    RESTORE_QUEUE,
    BackupJob,
    DrillJob,
    JobEvent,
    MessageTooNew,
    VerifyJob,
    parse_event,
    parse_job,
    queue_of,
)

ID = UUID("6f2d3a0e-6d0c-4c8e-9b54-0d4a3f1c7e11")
AT = datetime(2026, 11, 22, 3, tzinfo=UTC)
LABEL = "20261122T030000Z-F-k3x7"
JOBS: list[BackupJob | VerifyJob | DrillJob] = [
    BackupJob(job_id=ID, cluster="main", kind=BackupKind.FULL, due=AT, late=True),
    VerifyJob(job_id=ID, cluster="main", label=LABEL, document_digest="0" * 64),
    DrillJob(job_id=ID, cluster="main", label=LABEL),
    DrillJob(job_id=ID, cluster="main"),
    DrillJob(job_id=ID, cluster="main", target="random"),
    DrillJob(job_id=ID, cluster="main", target="2026-11-22T12:00:00+01:00"),
]
EVENT = JobEvent(
    job_id=ID,
    cluster="main",
    verb=JobVerb.BACKUP,
    kind=JobEventKind.FINISHED,
    attempt=1,
    at=AT,
    succeeded=True,
    result=LABEL,
)


def changed(**members: Any) -> str:
    return json.dumps({**json.loads(JOBS[0].model_dump_json()), **members})


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_read_back_as_it_was_sent(job: BackupJob | VerifyJob | DrillJob) -> None:
    assert parse_job(job.model_dump_json()) == job


def test_an_event_is_read_back_and_reports_everything_it_says() -> None:
    event = parse_event(EVENT.model_dump_json())
    assert event == EVENT
    report = event.report()
    assert (report.kind, report.attempt, report.at) == (EVENT.kind, 1, AT)
    assert (report.succeeded, report.result) == (True, LABEL)


def test_only_the_queue_of_the_restore_role_gets_what_must_be_decrypted() -> None:
    assert [queue_of(job) for job in JOBS] == [BACKUP_QUEUE] + [RESTORE_QUEUE] * 5


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "invalid json"),
        ("{", "invalid json"),
        ("[]", "message: "),
        ("null", "message: "),
        ("\x00", "invalid json"),
        ('{"verb": "backup\x00"}', "invalid json"),
        (changed(version=0), "version: "),
        (changed(version="2"), "version: "),
        (changed(version=None), "version: "),
        (changed(verb="delete"), "'delete'"),
        (changed(verb=None), "message: "),
        (changed(job_id="1"), "job_id: "),
        (changed(cluster="../other"), "cluster: "),
        (changed(cluster="main\u0000"), "cluster: "),
        (changed(kind="half"), "kind: "),
        (changed(due="2026-11-22T03:00:00"), "due: "),
        (changed(colour="red"), "colour: "),
        (changed(verb="drill", label="x"), ""),
    ],
)
def test_d06_a_poison_message_is_refused_with_its_first_fault(text: str, fact: str) -> None:
    with pytest.raises(MessageInvalid) as refused:
        parse_job(text)
    assert fact in refused.value.fact
    assert not refused.value.retryable


@pytest.mark.parametrize(
    "more", [{}, {"verb": "levitate"}, {"colour": "red"}, {"kind": None}, {"job_id": 7}]
)
def test_d06_a_newer_version_is_told_from_nonsense_whatever_else_is_new(
    more: dict[str, object],
) -> None:
    for parse in (parse_job, parse_event):
        with pytest.raises(MessageTooNew, match="version 2, this release knows 1"):
            parse(changed(version=2, **more))


@pytest.mark.parametrize("target", ["soon", "2026-11-22T12:00:00", 7, ""])
def test_a_drill_to_no_instant_is_refused(target: object) -> None:
    drill = json.loads(JOBS[2].model_dump_json())
    with pytest.raises(MessageInvalid, match="target: "):
        parse_job(json.dumps({**drill, "target": target}))


def test_an_instant_travels_in_utc() -> None:
    sent = json.loads(JOBS[-1].model_dump_json())
    assert sent["target"] == "2026-11-22T11:00:00.000000Z"


def test_d06_64_kib_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(MessageInvalid, match=f"longer than {MAX_MESSAGE}"):
        parse_job(changed(colour="x" * 64 * 1024))


@given(st.text(max_size=200))
def test_no_text_makes_the_parsers_raise_anything_else(text: str) -> None:
    for parse in (parse_job, parse_event):
        with pytest.raises(MessageInvalid):
            parse(text)


def test_the_fault_of_a_message_does_not_quote_its_value() -> None:
    with pytest.raises(MessageInvalid) as refused:
        parse_job(changed(kind="canary-password"))
    assert "canary" not in refused.value.fact
