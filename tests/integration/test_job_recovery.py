"""What becomes of jobs whose worker fell silent, and of messages that nobody can take in.

The control plane on a real catalogue; queues are in memory, and the clock is the test's.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from functions.event_watch import WAITS_AT_MOST
from functions.job_watch import KEPT_FOR, prune, recover_lost, watch_jobs
from functions.outbox import send_requested
from functions.poisoned import SHOWN_FOR, take_in_poison
from functions.poisoned_jobs import close_job
from functions.queue_job_event import take_in_event
from functions.queue_poison_blobs import take_in_blob
from functions.queue_wal_event import take_in_wal_event
from functions.silent_jobs import (
    ASKED_AGAIN_AFTER,
    LOST_AFTER,
    NEVER_TAKEN_AFTER,
    RETRIES,
    retry_id,
)
from shared.catalogue.job_ledger import CLAIM_AT_ONCE
from shared.catalogue.ports import RecordedFinding
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.backup import BackupKind
from shared.domain.findings import REPOSITORY
from shared.domain.job import JobEventKind, JobState
from shared.errors import CatalogueUnavailable, StorageUnavailable
from shared.event_log import LOGGER
from shared.jobs.messages import (
    BACKUP_QUEUE,
    EVENT_QUEUE,
    JOB_QUEUES,
    POISON,
    WAL_EVENT_QUEUE,
    AnyJob,
    BackupJob,
    JobEvent,
    RestoreJob,
)
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import NOON, SignedRepository

pytestmark = pytest.mark.integration

MINUTE = timedelta(minutes=1)
JOB = BackupJob(job_id=UUID(int=1), cluster="demo", kind=BackupKind.FULL)


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@dataclass
class Ward(ControlPlane):
    """A control plane whose minutes pass one by one."""

    def minutes(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(minutes=1)
            recover_lost(self.services)
            send_requested(self.services)

    def hear(self, job: AnyJob, kind: JobEventKind, **more: object) -> None:
        event = JobEvent(
            job_id=job.job_id,
            cluster=job.cluster,
            verb=job.verb,
            kind=kind,
            attempt=1,
            at=self.clock.now,
        )
        take_in_event(self.services, event.model_copy(update=more).model_dump_json().encode())

    def start(self, job: AnyJob) -> None:
        self.catalogue.request(job, self.clock.now)
        send_requested(self.services)
        self.hear(job, JobEventKind.STARTED)

    def state(self, job_id: UUID = JOB.job_id) -> JobState:
        return self.catalogue.job(job_id).progress.state

    def open(self) -> list[RecordedFinding]:
        watch_jobs(self.services)
        return list(self.catalogue.findings())

    def codes(self) -> list[tuple[str, str, str]]:
        return sorted((x.cluster, x.finding.code.value, x.finding.object) for x in self.open())


@pytest.fixture
def ward(server: CatalogueServer, tmp_path: Path) -> Ward:
    store = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    repository = SignedRepository(store)
    repository.register()
    queues = {name: MemoryQueue() for name in JOB_QUEUES}
    made = Ward(repository, PostgresCatalogue(server.database()), queues)
    made.minutes(1)
    return made


LOST_MINUTES = LOST_AFTER // MINUTE + 1


class TestLostJobs:
    def test_s06_a_silent_job_is_lost_within_two_heartbeats_and_asked_for_again(
        self, ward: Ward
    ) -> None:
        ward.start(JOB)
        assert ward.take_jobs(BACKUP_QUEUE) == [JOB]
        ward.minutes(LOST_MINUTES - 1)
        assert ward.state() is JobState.RUNNING
        ward.minutes(1)
        assert ward.catalogue.job(JOB.job_id).progress.lost
        again = JOB.model_copy(update={"job_id": retry_id(JOB.job_id, 1)})
        assert ward.take_jobs(BACKUP_QUEUE) == [again]
        assert ward.open() == [], "the retry is under way"

    def test_a_job_that_beats_is_never_lost_whatever_its_hosts_clock_says(self, ward: Ward) -> None:
        ward.start(JOB)
        for minute in range(10):
            skewed = ward.clock.now - timedelta(hours=1) + minute * timedelta(seconds=1)
            ward.hear(JOB, JobEventKind.PROGRESS, at=skewed)
            ward.minutes(1)
        assert ward.state() is JobState.RUNNING

    def test_the_budget_bounds_the_requests_and_then_there_is_a_finding(self, ward: Ward) -> None:
        ward.start(JOB)
        for number in range(1, RETRIES + 1):
            ward.minutes(LOST_MINUTES)
            again = JOB.model_copy(update={"job_id": retry_id(JOB.job_id, number)})
            assert ward.catalogue.job(again.job_id).retry == number
            ward.hear(again, JobEventKind.STARTED)
        ward.minutes(2 * LOST_MINUTES)

        assert len(ward.catalogue.jobs(limit=99)) == RETRIES + 1
        [opened] = ward.open()
        assert (opened.cluster, opened.finding.code, opened.finding.object) == (
            "demo",
            "job-lost",
            "backup",
        )
        assert opened.finding.evidence["retries"] == str(RETRIES)

    def test_a_lost_worker_that_comes_back_and_succeeds_has_the_last_word(self, ward: Ward) -> None:
        ward.start(JOB)
        ward.minutes(LOST_MINUTES)
        ward.hear(JOB, JobEventKind.FINISHED, succeeded=True, result="label")
        assert ward.state() is JobState.SUCCEEDED
        ward.minutes(LOST_MINUTES)
        assert ward.state() is JobState.SUCCEEDED
        assert ward.open() == []

    def test_a_restore_is_never_repeated_unasked(self, ward: Ward) -> None:
        job = RestoreJob(
            job_id=UUID(int=2), cluster="demo", target="spare", requested_by="a", approved_by="b"
        )
        ward.start(job)
        ward.minutes(LOST_MINUTES)
        assert ward.catalogue.job(job.job_id).progress.lost
        assert len(ward.catalogue.jobs(limit=9)) == 1
        assert ward.codes() == [("demo", "job-lost", "restore")]

    def test_i9_a_message_that_expired_unread_ends_its_job(self, ward: Ward) -> None:
        ward.catalogue.request(JOB, NOON)
        send_requested(ward.services)
        ward.clock.advance(seconds=(NEVER_TAKEN_AFTER - MINUTE).total_seconds())
        ward.minutes(0)
        assert ward.state() is JobState.REQUESTED
        ward.minutes(2)
        assert ward.catalogue.job(JOB.job_id).progress.lost
        assert len(ward.catalogue.jobs(limit=9)) == 1

    def test_i9_a_job_whose_last_events_were_lost_is_asked_for_again(self, ward: Ward) -> None:
        """Released, taken again and done; of this nothing arrived."""
        ward.start(JOB)
        ward.hear(JOB, JobEventKind.RELEASED)
        ward.take_jobs(BACKUP_QUEUE)
        ward.clock.advance(seconds=(ASKED_AGAIN_AFTER - MINUTE).total_seconds())
        ward.minutes(0)
        assert ward.take_jobs(BACKUP_QUEUE) == []
        ward.minutes(2)
        assert ward.take_jobs(BACKUP_QUEUE) == [JOB]
        ward.minutes(2)
        assert ward.take_jobs(BACKUP_QUEUE) == []


def test_a_fleets_requests_are_all_sent_at_once_and_once(ward: Ward) -> None:
    wanted = {UUID(int=number) for number in range(CLAIM_AT_ONCE + 3)}
    for job_id in wanted:
        ward.catalogue.request(JOB.model_copy(update={"job_id": job_id}), NOON)
    assert [send_requested(ward.services), send_requested(ward.services)] == [len(wanted), 0]
    assert {job.job_id for job in ward.take_jobs(BACKUP_QUEUE)} == wanted


class TestWhoIsSilent:
    """What is not heard may be our own fault."""

    def test_s01_after_the_app_was_down_workers_have_time_to_be_heard(self, ward: Ward) -> None:
        ward.start(JOB)
        ward.clock.advance(hours=6)
        ward.minutes(LOST_MINUTES - 1)
        assert ward.state() is JobState.RUNNING
        ward.hear(JOB, JobEventKind.PROGRESS)
        ward.minutes(LOST_MINUTES - 1)
        assert ward.state() is JobState.RUNNING
        ward.minutes(1)
        assert ward.catalogue.job(JOB.job_id).progress.lost

    def test_nothing_is_lost_while_events_wait_to_be_taken_in(self, ward: Ward) -> None:
        ward.start(JOB)
        for _ in range(2):
            ward.events.send("a beat that nobody has read")
        ward.minutes(3 * LOST_MINUTES)
        assert ward.state() is JobState.RUNNING
        while message := ward.events.receive(60):
            ward.events.delete(message)
        ward.minutes(LOST_MINUTES - 1)
        assert ward.state() is JobState.RUNNING
        ward.minutes(1)
        assert ward.state() is JobState.FAILED

    def test_nothing_is_lost_while_the_queue_is_away_nor_right_after(
        self, ward: Ward, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def away() -> int:
            raise StorageUnavailable("queue pgkeep-events does not answer")

        monkeypatch.setattr(LOGGER, "propagate", True)
        ward.start(JOB)
        with monkeypatch.context() as outage, caplog.at_level(logging.WARNING, LOGGER.name):
            outage.setattr(ward.events, "approximate_length", away)
            ward.minutes(3 * LOST_MINUTES)
        assert "events-unheard" in {record.message for record in caplog.records}
        ward.minutes(2)
        assert ward.state() is JobState.RUNNING
        ward.minutes(2)
        assert ward.state() is JobState.FAILED


class TestFindings:
    def test_a_failed_job_is_a_finding_until_one_of_its_verb_succeeds(self, ward: Ward) -> None:
        ward.start(JOB)
        ward.hear(
            JOB, JobEventKind.FINISHED, succeeded=False, error_code="postgres-gone", error_fact="x"
        )
        assert ward.codes() == [("demo", "job-failed", "backup")]
        [opened] = ward.open()
        assert "postgres-gone: x" in opened.finding.fact
        assert opened.finding.evidence["job_id"] == str(JOB.job_id)

        ward.minutes(60)
        later = JOB.model_copy(update={"job_id": UUID(int=9)})
        ward.start(later)
        assert ward.codes() == [("demo", "job-failed", "backup")], "not better yet"
        ward.hear(later, JobEventKind.FINISHED, succeeded=True, result="label")
        assert ward.open() == []

    def test_events_that_nobody_takes_in_are_a_finding_until_somebody_does(
        self, ward: Ward
    ) -> None:
        ward.events = MemoryQueue(wall=ward.clock)
        sent_at = ward.clock.now
        for _ in range(3):
            ward.events.send("an event")
        ward.clock.advance(seconds=WAITS_AT_MOST.total_seconds())
        assert ward.codes() == []
        ward.clock.advance(minutes=1)
        [opened] = ward.open()
        assert (opened.cluster, opened.finding.code) == (REPOSITORY, "events-waiting")
        assert (opened.finding.object, opened.finding.since) == (EVENT_QUEUE, sent_at)
        assert opened.finding.evidence == {"messages": "3", "minutes": "11"}
        for _ in range(3):
            assert ward.events.receive(60)
        assert ward.open() == [], "somebody has them"

    def test_a_queue_of_events_that_cannot_be_asked_hides_no_other_finding(
        self, ward: Ward, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away() -> None:
            raise StorageUnavailable("queue pgkeep-events does not answer")

        take_in_poison(ward.services, EVENT_QUEUE + POISON, b"{", take_in_event)
        with monkeypatch.context() as outage:
            outage.setattr(ward.events, "waiting_since", away)
            assert [code for _, code, _ in ward.codes()] == ["events-waiting", "message-poisoned"]
        assert [code for _, code, _ in ward.codes()] == ["message-poisoned"]

    def test_jobs_long_over_are_forgotten_and_others_are_not(self, ward: Ward) -> None:
        ward.start(JOB)
        ward.hear(JOB, JobEventKind.FINISHED, succeeded=True, result="label")
        ward.clock.advance(seconds=KEPT_FOR.total_seconds() + 1)
        ward.start(JOB.model_copy(update={"job_id": UUID(int=9)}))

        assert [prune(ward.services), prune(ward.services)] == [1, 0]
        assert [job.job_id.int for job in ward.catalogue.jobs(limit=9)] == [9]


HOSTILE = {
    "empty": b"",
    "null bytes": b'{"version": 1, "x": "\0\0"}\0',
    "bad utf-8": b"\xff\xfe\xc3(",
    "bad json": b"{",
    "deep json": b"[" * 20_000,
    "64 KiB": b"x" * 65_536,
    "newer": b'{"version": 2}',
    "escapes": b"\x1b[2J\r\nINFO all is well",
    "number": b"1e999",
}


class TestPoison:
    @pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
    def test_d06_whatever_the_bytes_are_they_are_set_aside_escaped(
        self, ward: Ward, body: bytes
    ) -> None:
        ways = {
            EVENT_QUEUE: take_in_event,
            WAL_EVENT_QUEUE: take_in_wal_event,
            BACKUP_QUEUE: close_job,
            "webjobs-blobtrigger": take_in_blob,
        }
        for queue, take_in in ways.items():
            take_in_poison(ward.services, queue + POISON, body, take_in)

        aside = ward.catalogue.set_aside_since(NOON, "message-poisoned")
        assert len(aside) == len(ways)
        assert all(one.fact.isascii() and one.fact.isprintable() for one in aside)
        assert {one.finding.object for one in ward.catalogue.findings()} == {
            queue + POISON for queue in ways
        }

    def test_d06_many_make_one_finding_for_their_queue_which_ends_when_none_comes(
        self, ward: Ward
    ) -> None:
        queue = EVENT_QUEUE + POISON
        for number in (1, 2, 3, 3):
            take_in_poison(ward.services, queue, b"%d" % number, take_in_event)
        assert ward.codes() == [(REPOSITORY, "message-poisoned", queue)]
        [opened] = ward.open()
        assert opened.finding.evidence["messages"] == "3"

        ward.clock.advance(seconds=SHOWN_FOR.total_seconds() + 1)
        assert ward.open() == []
        assert len(ward.catalogue.set_aside_codes()) == 3, "a person may still want to see them"

    def test_d01_an_event_that_came_while_the_catalogue_was_away_is_taken_in_after_all(
        self, ward: Ward, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: object) -> None:
            raise CatalogueUnavailable("the catalogue does not answer")

        ward.start(JOB)
        event = JobEvent(
            job_id=JOB.job_id,
            cluster="demo",
            verb=JOB.verb,
            kind=JobEventKind.FINISHED,
            attempt=1,
            at=NOON,
            succeeded=True,
            result="label",
        )
        body = event.model_dump_json().encode()
        with monkeypatch.context() as outage:
            outage.setattr(ward.catalogue, "record_event", away)
            with pytest.raises(CatalogueUnavailable):
                take_in_poison(ward.services, EVENT_QUEUE + POISON, body, take_in_event)

        take_in_poison(ward.services, EVENT_QUEUE + POISON, body, take_in_event)

        assert ward.state() is JobState.SUCCEEDED
        assert ward.open() == []

    def test_s08_a_job_that_no_worker_could_do_ends_and_shows(self, ward: Ward) -> None:
        ward.catalogue.request(JOB, NOON)
        send_requested(ward.services)
        [job] = ward.take_jobs(BACKUP_QUEUE)
        body = job.model_dump_json().encode()

        take_in_poison(ward.services, BACKUP_QUEUE + POISON, body, close_job)

        assert ward.state() is JobState.FAILED
        assert ward.codes() == [
            (REPOSITORY, "message-poisoned", BACKUP_QUEUE + POISON),
            ("demo", "job-failed", "backup"),
        ]

    def test_d07_a_blob_whose_event_was_poisoned_is_taken_in_after_all(self, ward: Ward) -> None:
        backup = ward.repository.commit()
        name = backup.ref.document
        body = (
            '{"Type":"BlobTrigger","FunctionId":"Host.Functions.blob_backup_committed",'
            f'"BlobType":"BlockBlob","ContainerName":"{name.container}",'
            f'"BlobName":"{name.path}","ETag":"x"}}'
        )

        take_in_poison(ward.services, "webjobs-blobtrigger-poison", body.encode(), take_in_blob)

        assert [item.ref for item in ward.catalogue.backups(limit=9)] == [backup.ref]
        assert ward.open() == []
