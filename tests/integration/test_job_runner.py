"""The container's loop: jobs are done once, reported, repeated when that may help, and given up."""

import json
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from local.azurite import EmulatedAccount
from local.free_port import free_port
from local.postgres_server import PostgresServer
from shared import adapters
from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.job import JobEventKind, JobState, fold_all
from shared.errors import MessageGone, StorageDenied
from shared.jobs.lease import hold
from shared.jobs.messages import (
    BACKUP_QUEUE,
    EVENT_QUEUE,
    POISON,
    RESTORE_QUEUE,
    AnyJob,
    BackupJob,
    DrillJob,
    JobEvent,
    VerifyJob,
    parse_event,
    parse_job,
)
from shared.jobs.queue import QueueMessage
from shared.repository import layout
from shared.repository.backups import list_backups
from tests.harness.memory_queue import MemoryQueue
from tests.harness.worker_services import CHECKOUT, CLUSTER, Site
from worker import job_runner
from worker.commands.perform import perform
from worker.commands.services import Services
from worker.job_runner import MAX_ATTEMPTS, NEWER_DELAY_S, NEWER_TRIES, Inbox, serve_one
from worker.wiring import Interrupted

pytestmark = pytest.mark.integration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A queue of jobs, one of events, and a worker that serves them in this process."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.clock = Clock()
        self.jobs = MemoryQueue(self.clock)
        self.poison = MemoryQueue()
        self.events = MemoryQueue()

    def serve(self) -> bool:
        inbox = Inbox(self.jobs, self.poison)
        return serve_one(self.site.services(), inbox, self.events)

    def poisoned(self) -> list[str]:
        """Takes all of it away."""
        found = []
        while message := self.poison.receive(60):
            found.append(message.body)
            self.poison.delete(message)
        return found

    def heard(self) -> list[JobEvent]:
        """Takes all events away."""
        found = []
        while message := self.events.receive(60):
            found.append(parse_event(message.body))
            self.events.delete(message)
        return found


@pytest.fixture
def desk(site: Site) -> Desk:
    return Desk(site)


def backup_job() -> BackupJob:
    return BackupJob(job_id=uuid4(), cluster=CLUSTER, kind=BackupKind.FULL)


def unknown_cluster() -> BackupJob:
    """Takes no time to fail."""
    return BackupJob(job_id=uuid4(), cluster="unknown", kind=BackupKind.FULL)


def labels(site: Site) -> list[str]:
    return [str(ref.label) for ref in list_backups(site.services().store)]


def state_of(events: Sequence[JobEvent]) -> JobState:
    return fold_all(event.report() for event in events).state


def test_jobs_are_done_reported_and_gone_and_done_once_however_often_delivered(desk: Desk) -> None:
    job = backup_job()
    desk.jobs.send(job.model_dump_json())
    desk.jobs.send(job.model_dump_json())
    assert desk.serve()
    events = desk.heard()
    assert [events[0].kind, events[-1].kind] == [JobEventKind.STARTED, JobEventKind.FINISHED]
    assert {event.job_id for event in events} == {job.job_id}
    (label,) = labels(desk.site)
    assert (events[-1].succeeded, events[-1].result) == (True, label)
    # Other backups come in between; the second delivery still finds its own.
    desk.site.backup()
    assert desk.serve()
    assert desk.heard()[-1].result == label
    assert len(labels(desk.site)) == 2
    assert desk.jobs.approximate_length() == 0
    assert not desk.serve()


def test_a_verification_and_a_drill_report_under_the_job_s_id(desk: Desk) -> None:
    outcome = desk.site.backup()
    verify = VerifyJob(
        job_id=uuid4(), cluster=CLUSTER, label=outcome.label, document_digest=outcome.digest
    )
    drill = DrillJob(job_id=uuid4(), cluster=CLUSTER)
    for job in (verify, drill):
        desk.jobs.send(job.model_dump_json())
        desk.serve()
        last = desk.heard()[-1]
        assert (last.succeeded, last.result, last.error_fact) == (True, str(job.job_id), None)
        report = "verifications" if job is verify else "drills"
        place = desk.site.repository / "evidence" / CLUSTER / report / str(job.job_id)
        assert (place / "report.json").exists()


@pytest.mark.parametrize("body", ["", "{", '{"verb": "backup"}', "\0", "x" * 40_000])
def test_d06_a_malformed_message_goes_to_the_poison_queue_and_the_next_is_served(
    desk: Desk, body: str
) -> None:
    desk.jobs.send(body)
    desk.jobs.send(unknown_cluster().model_dump_json())
    assert desk.serve()
    assert desk.heard() == []
    assert desk.poisoned() == [body]
    assert desk.serve()
    assert desk.heard()[-1].error_code == "settings-invalid"
    assert desk.poisoned() == []


def test_d06_a_foreign_text_that_would_not_fit_encoded_is_cut_and_never_in_the_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.jobs.send("{")
    stored = desk.jobs.receive
    huge: Callable[[int], QueueMessage | None] = lambda seconds: (  # noqa: E731
        (message := stored(seconds)) and replace(message, body="\u20ac" * 20_000)
    )
    monkeypatch.setattr(desk.jobs, "receive", huge)
    assert desk.serve()
    (body,) = desk.poisoned()
    assert set(body) == {"\u20ac"}
    assert desk.jobs.approximate_length() == 0


def test_a_message_of_a_newer_release_is_left_for_a_newer_worker_before_it_is_poison(
    desk: Desk,
) -> None:
    newer = json.dumps({**unknown_cluster().model_dump(mode="json"), "version": 2, "new": 1})
    desk.jobs.send(newer)
    for _ in range(NEWER_TRIES):
        assert desk.serve()
        assert not desk.serve(), "it is hidden for a while"
        assert desk.poisoned() == []
        desk.clock.now += NEWER_DELAY_S + 1
    assert desk.serve()
    assert desk.poisoned() == [newer]
    assert desk.jobs.approximate_length() == 0
    assert NEWER_TRIES < MAX_ATTEMPTS, "a newer worker needs an attempt"


def test_a_job_that_cannot_succeed_fails_at_once_with_its_reason(desk: Desk) -> None:
    desk.jobs.send(unknown_cluster().model_dump_json())
    desk.serve()
    last = desk.heard()[-1]
    assert (last.succeeded, last.error_code) == (False, "settings-invalid")
    assert "no cluster 'unknown'" in str(last.error_fact)
    assert desk.jobs.approximate_length() == 0


def test_a_job_that_may_succeed_later_is_tried_five_times_with_growing_pauses(desk: Desk) -> None:
    away = desk.site.changed(cluster={"dsn": f"host=127.0.0.1 port={free_port()} user=x dbname=x"})
    desk.site = away
    desk.jobs.send(backup_job().model_dump_json())
    everything: list[JobEvent] = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert desk.serve()
        events = desk.heard()
        everything += events
        assert {event.attempt for event in events} == {attempt}
        finished = [event for event in events if event.kind is JobEventKind.FINISHED]
        assert bool(finished) == (attempt == MAX_ATTEMPTS)
        if not finished:
            assert everything[-1].kind is JobEventKind.RELEASED
            assert state_of(everything) is JobState.REQUESTED
            assert not desk.serve(), "it is hidden for a while"
            desk.clock.now += job_runner.RETRY_DELAY_S * attempt + 1
    assert everything[-1].error_code == "postgres-unreachable"
    assert desk.jobs.approximate_length() == 0


def test_s08_a_job_that_killed_every_worker_is_given_up_and_goes_to_the_poison_queue(
    desk: Desk,
) -> None:
    job = backup_job()
    desk.jobs.send(job.model_dump_json())
    for _ in range(MAX_ATTEMPTS):
        assert desk.jobs.receive(60) is not None  # a worker takes it, and dies
        desk.clock.now += 61
    assert desk.serve()
    (event,) = desk.heard()
    assert (event.succeeded, event.error_code) == (False, "job-abandoned")
    assert labels(desk.site) == []
    assert [parse_job(body) for body in desk.poisoned()] == [job]
    assert desk.jobs.approximate_length() == 0


class Stolen(MemoryQueue):
    """While a job runs, its message becomes visible and another worker takes it."""

    def delete(self, message: QueueMessage) -> None:
        raise MessageGone("the receipt is no longer valid")


def test_s07_a_worker_whose_message_was_taken_over_goes_on_with_the_next(site: Site) -> None:
    jobs, events = Stolen(), MemoryQueue()
    jobs.send(backup_job().model_dump_json())
    assert serve_one(site.services(), Inbox(jobs, MemoryQueue()), events)
    assert len(labels(site)) == 1


def test_s07_a_message_stays_hidden_while_its_job_runs_and_the_job_shows_that_it_lives(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "VISIBILITY_S", 0.3)
    renewed: list[QueueMessage] = []
    renew = desk.jobs.renew

    def counted(message: QueueMessage, visibility_s: int) -> QueueMessage:
        renewed.append(message)
        return renew(message, visibility_s)

    monkeypatch.setattr(desk.jobs, "renew", counted)
    enough = threading.Event()
    slow: Callable[..., str] = lambda *_: str(enough.wait(1))  # noqa: E731
    monkeypatch.setattr(job_runner, "perform", slow)
    desk.jobs.send(backup_job().model_dump_json())
    desk.serve()
    assert len(renewed) >= 3
    kinds = [event.kind for event in desk.heard()]
    assert kinds.count(JobEventKind.PROGRESS) >= 3
    assert desk.jobs.approximate_length() == 0


def test_s07_a_job_reports_under_the_token_of_its_lease(desk: Desk) -> None:
    for wanted in (1, 2):
        desk.jobs.send(backup_job().model_dump_json())
        desk.serve()
        events = desk.heard()
        assert [events[0].token, events[-1].token] == [None, wanted]


def test_s06_a_job_whose_dead_worker_still_holds_the_lease_waits_for_it(desk: Desk) -> None:
    lock = layout.lock(cluster_name(CLUSTER), "backup").path
    desk.jobs.send(backup_job().model_dump_json())
    with hold(desk.site.services().leases, lock, "the worker that died", ttl_s=15):
        desk.serve()
    events = desk.heard()
    assert events[-1].error_code == "lease-held"
    assert state_of(events) is JobState.REQUESTED
    desk.clock.now += job_runner.RETRY_DELAY_S + 1
    desk.serve()
    assert state_of([*events, *desk.heard()]) is JobState.SUCCEEDED


def test_b08_a_job_that_is_interrupted_goes_back_at_once_and_leaves_no_lease(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = layout.lock(cluster_name(CLUSTER), "backup").path

    def interrupted(services: Services, job: AnyJob) -> str:
        with hold(services.leases, lock, "us", ttl_s=15):
            raise Interrupted

    monkeypatch.setattr(job_runner, "perform", interrupted)
    desk.jobs.send(backup_job().model_dump_json())
    desk.serve()
    events = desk.heard()
    assert (events[-1].kind, state_of(events)) == (JobEventKind.RELEASED, JobState.REQUESTED)
    assert desk.site.services().leases.current(lock) is None

    monkeypatch.setattr(job_runner, "perform", perform)
    assert desk.serve(), "visible without any wait"
    assert state_of([*events, *desk.heard()]) is JobState.SUCCEEDED


_INTERRUPTED = """
from threading import Event
from worker.wiring import Interrupted, job_stop_signal
stop = job_stop_signal(1)
print("ready", flush=True)
try:
    Event().wait(30)
except Interrupted:
    print("asked", stop.is_set(), flush=True)
"""


def test_b08_sigterm_stops_taking_jobs_and_interrupts_the_running_one_when_its_grace_is_over() -> (
    None
):
    command = [sys.executable, "-c", _INTERRUPTED]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "asked True\n"
    assert process.returncode == 0


class Deployed(MemoryQueue):
    """Somebody else made it, and lets us use it alone."""

    def create_if_missing(self) -> None:
        raise StorageDenied("queue: creating it needs queues/write")


def test_a_worker_that_may_not_make_queues_serves_those_that_were_made(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues: defaultdict[str, Deployed] = defaultdict(Deployed)
    monkeypatch.setattr(adapters, "job_queue", lambda _settings, name: queues[name])
    queues[BACKUP_QUEUE].send(unknown_cluster().model_dump_json())
    job_runner.run(site.services(), [BACKUP_QUEUE], once=True, stop=threading.Event())
    assert set(queues) == {BACKUP_QUEUE, BACKUP_QUEUE + POISON, EVENT_QUEUE}
    assert queues[BACKUP_QUEUE].approximate_length() == 0
    assert queues[EVENT_QUEUE].approximate_length() == 2


def test_run_once_serves_one_job_of_real_queues(
    source_cluster: PostgresServer, azurite_account: EmulatedAccount, site: Site
) -> None:
    credential = {"kind": "emulator-key", "account_key": azurite_account.key}
    queues = {"account_url": azurite_account.queue_url, "credential": credential}
    with_queues = site.changed(queues=queues)
    backups, restores, events = (
        adapters.job_queue(with_queues.settings, name)
        for name in (BACKUP_QUEUE, RESTORE_QUEUE, EVENT_QUEUE)
    )
    for queue in (backups, restores):
        queue.create_if_missing()
    backups.send(backup_job().model_dump_json())
    restores.send(DrillJob(job_id=uuid4(), cluster=CLUSTER).model_dump_json())
    done = with_queues.pgkeep("run", "--once")
    assert done.returncode == 0, done.stderr
    assert len(labels(site)) == 1
    assert backups.approximate_length() == 0
    assert restores.approximate_length() == 1, "one job only"
    kinds = []
    while message := events.receive(30):
        kinds.append(parse_event(message.body).kind)
        events.delete(message)
    assert kinds[-1] is JobEventKind.FINISHED
    assert '"event": "job-finished"' in done.stderr
