"""The contract of JobRecovery, and of the list of jobs, on a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from shared.catalogue.job_recovery import LOOKS_ARE_UNBROKEN
from shared.catalogue.ports import Catalogue
from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.job import JobEventKind, JobState, JobVerb
from shared.errors import JobNotFound, RequestConflict
from shared.jobs.messages import BackupJob, JobEvent
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.signed_repository import NOON

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
BOTH_CATALOGUES = True


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def dsn(server: CatalogueServer) -> str:
    return server.database()


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


def backup_job(number: int, cluster: str = "demo") -> BackupJob:
    return BackupJob(job_id=UUID(int=number), cluster=cluster, kind=BackupKind.FULL)


def event(job: BackupJob, kind: JobEventKind, at: datetime = NOON, **more: object) -> JobEvent:
    base = JobEvent(
        job_id=job.job_id, cluster=job.cluster, verb=JobVerb.BACKUP, kind=kind, attempt=1, at=at
    )
    return base.model_copy(update=more)


def running(catalogue: Catalogue, job: BackupJob, now: datetime = NOON) -> BackupJob:
    catalogue.request(job, now)
    catalogue.mark_sent(job.job_id, now)
    catalogue.record_event(event(job, JobEventKind.STARTED), now)
    return job


def ended(
    catalogue: Catalogue, job: BackupJob, now: datetime, code: str | None = None
) -> BackupJob:
    running(catalogue, job, now)
    end = event(job, JobEventKind.FINISHED, succeeded=code is None, error_code=code)
    catalogue.record_event(end, now)
    return job


def lost(job: BackupJob) -> JobEvent:
    return event(job, JobEventKind.FINISHED, succeeded=False, error_code="job-lost")


def ids(records: object) -> list[int]:
    return [record.job_id.int for record in records]  # type: ignore[attr-defined]


class TestSilence:
    def test_it_is_measured_from_what_was_taken_in_last_by_our_clock(
        self, catalogue: Catalogue
    ) -> None:
        job = running(catalogue, backup_job(1))
        a_slow_clock = event(job, JobEventKind.PROGRESS, NOON - DAY)
        catalogue.record_event(a_slow_clock, NOON + 5 * MINUTE)

        assert catalogue.silent_jobs(NOON + 5 * MINUTE) == []
        assert ids(catalogue.silent_jobs(NOON + 6 * MINUTE)) == [1]

    def test_d09_a_replayed_event_and_a_worker_that_was_overtaken_are_no_signs_of_life(
        self, catalogue: Catalogue
    ) -> None:
        job = running(catalogue, backup_job(1))
        newer = event(job, JobEventKind.PROGRESS, token=6)
        catalogue.record_event(newer, NOON + MINUTE)
        before = catalogue.job(job.job_id)

        catalogue.record_event(newer, NOON + DAY)
        catalogue.record_event(event(job, JobEventKind.PROGRESS, token=5), NOON + DAY)

        assert catalogue.job(job.job_id) == before
        assert before.received_at == NOON + MINUTE
        assert len(catalogue.job_reports(job.job_id)) == 3

    def test_jobs_that_nobody_took_are_told_from_those_that_run(self, catalogue: Catalogue) -> None:
        running(catalogue, backup_job(1))
        for number in (2, 3):
            catalogue.request(backup_job(number), NOON)
        catalogue.mark_sent(UUID(int=2), NOON)

        assert ids(catalogue.never_taken(NOON + DAY)) == [2]
        assert catalogue.never_taken(NOON) == []

    def test_several_are_found_at_once_and_those_that_are_unknown_are_left_out(
        self, catalogue: Catalogue
    ) -> None:
        for number in (1, 2, 3):
            catalogue.request(backup_job(number), NOON)
        wanted = [UUID(int=number) for number in (1, 3, 9)]
        found = catalogue.jobs_of(wanted)
        assert found == {one: catalogue.job(one) for one in wanted[:2]}
        assert catalogue.jobs_of([]) == {}

    def test_the_same_request_of_another_trace_is_no_other_request(
        self, catalogue: Catalogue
    ) -> None:
        first, again = (
            backup_job(1).model_copy(update={"traceparent": trace}) for trace in ("00-a", "00-b")
        )
        assert catalogue.request(first, NOON)
        assert not catalogue.request(again, NOON)
        assert not catalogue.request(backup_job(1), NOON)
        assert catalogue.claim_unsent(NOON) == [first]
        with pytest.raises(RequestConflict):
            catalogue.request(backup_job(1, "other"), NOON)

    def test_looks_count_since_the_first_of_an_unbroken_series_that_heard(
        self, catalogue: Catalogue
    ) -> None:
        def look(minutes: float, *, hears: bool = True) -> float:
            since = catalogue.listen(NOON + minutes * MINUTE, hears=hears)
            return (since - NOON) / MINUTE

        assert [look(0), look(1), look(2)] == [0, 0, 0]
        assert [look(3, hears=False), look(4), look(5)] == [3, 4, 4]
        late = 6 + LOOKS_ARE_UNBROKEN / MINUTE
        assert [look(late), look(late + 1)] == [late, late]
        assert look(late - 1) == late, "another instance, whose clock is behind"


class TestGivingUp:
    def test_the_end_and_the_retry_are_one_step_and_the_retry_knows_the_first(
        self, catalogue: Catalogue
    ) -> None:
        job = running(catalogue, backup_job(1))
        once, twice = backup_job(11), backup_job(12)
        late = NOON + DAY

        assert catalogue.give_up(lost(job), once, quiet_since=late, now=late)
        running(catalogue, once, NOON)
        assert catalogue.give_up(lost(once), twice, quiet_since=late, now=late)

        records = [catalogue.job(one.job_id) for one in (job, once, twice)]
        assert [record.retry for record in records] == [0, 1, 2]
        assert {record.first for record in records} == {job.job_id}
        assert [record.progress.lost for record in records] == [True, True, False]
        assert catalogue.claim_unsent(late) == [twice]

    def test_it_is_not_given_up_when_there_was_news_or_it_is_over(
        self, catalogue: Catalogue
    ) -> None:
        job = running(catalogue, backup_job(1))
        catalogue.record_event(event(job, JobEventKind.PROGRESS, NOON + MINUTE), NOON + MINUTE)
        over = ended(catalogue, backup_job(2), NOON)

        for one, quiet in ((job, NOON + MINUTE), (over, NOON + DAY)):
            assert not catalogue.give_up(
                lost(one), backup_job(99), quiet_since=quiet, now=NOON + DAY
            )
        assert catalogue.job(job.job_id).progress.state is JobState.RUNNING
        with pytest.raises(JobNotFound):
            catalogue.job(UUID(int=99))

    def test_eight_instances_give_it_up_once(self, catalogue: Catalogue) -> None:
        job = running(catalogue, backup_job(1))

        def give_up(_: int) -> bool:
            return catalogue.give_up(lost(job), backup_job(11), quiet_since=NOON + DAY, now=NOON)

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(give_up, range(8))) == [False] * 7 + [True]


class TestFailedJobs:
    def test_only_the_last_to_end_of_each_cluster_and_verb_counts(
        self, catalogue: Catalogue
    ) -> None:
        ended(catalogue, backup_job(1, "mended"), NOON, "postgres-gone")
        ended(catalogue, backup_job(2, "mended"), NOON + DAY)
        ended(catalogue, backup_job(3, "broken"), NOON, "postgres-gone")
        running(catalogue, backup_job(4, "broken"), NOON + DAY)
        ended(catalogue, backup_job(5, "twice"), NOON, "postgres-gone")
        ended(catalogue, backup_job(6, "twice"), NOON + DAY, "storage-denied")

        assert ids(catalogue.failed_jobs()) == [3, 6]

    def test_a_lost_job_counts_when_no_retry_is_under_way_and_not_after_a_late_success(
        self, catalogue: Catalogue
    ) -> None:
        job, again = running(catalogue, backup_job(1)), backup_job(11)
        catalogue.give_up(lost(job), again, quiet_since=NOON + DAY, now=NOON + DAY)
        assert catalogue.failed_jobs() == []

        ended(catalogue, again, NOON + 2 * DAY, "lease-held")
        assert ids(catalogue.failed_jobs()) == [11]
        late = event(job, JobEventKind.FINISHED, succeeded=True, result="label")
        catalogue.record_event(late, NOON + 3 * DAY)
        # The retry's worker fails once more: that is no news.
        failure = event(again, JobEventKind.FINISHED, succeeded=False, error_code="lease-lost")
        catalogue.record_event(failure, NOON + 4 * DAY)
        assert catalogue.failed_jobs() == []
        assert catalogue.job(job.job_id).ended_at == NOON + 3 * DAY


class TestList:
    def test_jobs_are_listed_from_the_newest_in_pages_by_cluster_and_state(
        self, catalogue: Catalogue
    ) -> None:
        for number in range(1, 6):
            ended(catalogue, backup_job(number), NOON + number // 2 * MINUTE)
        running(catalogue, backup_job(6, "other"), NOON)

        page = catalogue.jobs(limit=3)
        rest = catalogue.jobs(limit=9, before=page[-1].job_id)

        assert ids(page) == [5, 4, 3]
        assert ids(rest) == [2, 6, 1]
        assert ids(catalogue.jobs(ClusterName("other"), limit=9)) == [6]
        assert ids(catalogue.jobs(state=JobState.RUNNING, limit=9)) == [6]
        assert catalogue.jobs(ClusterName("demo"), JobState.FAILED, limit=9) == []


class TestPruning:
    def test_old_jobs_go_with_their_events_but_not_what_runs_or_what_a_schedule_remembers(
        self, catalogue: Catalogue, dsn: str
    ) -> None:
        old = NOON - 500 * DAY
        ended(catalogue, backup_job(1), old)
        running(catalogue, backup_job(2), old)
        remembered = ended(catalogue, backup_job(3), old)
        overtaken = ended(catalogue, backup_job(4), old)
        ended(catalogue, backup_job(5), NOON)
        tick = """
            INSERT INTO served_tick (cluster, kind, due, job_id, served_at)
            VALUES (%s, %s, %s, %s, %s)
        """
        with psycopg.connect(dsn) as connection:
            for due, job in ((old, overtaken), (old + DAY, remembered)):
                connection.execute(tick, ["demo", "full", due, job.job_id, old])

        assert catalogue.prune_jobs(NOON - 400 * DAY) == 2
        assert catalogue.prune_jobs(NOON - 400 * DAY) == 0

        assert sorted(ids(catalogue.jobs(limit=9))) == [2, 3, 5]
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(*) FROM served_tick").fetchone() == (1,)
            assert connection.execute(
                "SELECT count(*) FROM job_event WHERE job_id = %s", [UUID(int=1)]
            ).fetchone() == (0,)


def test_looking_for_what_goes_wrong_reads_indexes_however_many_jobs_are_over(
    catalogue: Catalogue, dsn: str
) -> None:
    running(catalogue, backup_job(1))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO job (job_id, cluster, verb, state, progress, created_at, ended_at)
            SELECT gen_random_uuid(), 'c' || n % 500, 'backup', 'succeeded', '{}', now(), now()
            FROM generate_series(1, 20000) AS n
            """
        )
        connection.execute("ANALYZE job")
        for query in (
            "SELECT * FROM job WHERE state = 'running'",
            "SELECT * FROM job WHERE state = 'requested' AND sent_at < now()",
            "SELECT * FROM job WHERE state = 'failed'",
        ):
            plan = connection.execute(sql.SQL("EXPLAIN " + query)).fetchall()
            assert "Index" in plan[0][0] or "Bitmap" in plan[0][0], plan
        plan = connection.execute(
            "EXPLAIN SELECT * FROM job ORDER BY created_at DESC, job_id DESC LIMIT 50"
        ).fetchall()
        assert "Index Scan Backward" in plan[1][0], plan


def test_what_was_set_aside_is_listed_by_code_and_time(catalogue: Catalogue) -> None:
    catalogue.set_aside("q-poison/a", "message-poisoned", "first", NOON)
    catalogue.set_aside("q-poison/a", "message-poisoned", "second", NOON + DAY)
    catalogue.set_aside("q-poison/b", "message-poisoned", "old", NOON - DAY)
    catalogue.set_aside("full/x", "corrupt", "another", NOON)

    [found] = catalogue.set_aside_since(NOON, "message-poisoned")

    assert (found.name, found.fact, found.times) == ("q-poison/a", "second", 2)
    assert (found.first_seen_at, found.last_seen_at) == (NOON, NOON + DAY)
