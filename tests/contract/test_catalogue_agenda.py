"""The contract of Agenda in shared.catalogue.agenda_port, on a real PostgreSQL."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from shared.catalogue.agenda_port import ServedTick
from shared.catalogue.agenda_table import DUE
from shared.catalogue.ports import Catalogue
from shared.domain.agenda import AgendaChanges, AgendaEntry
from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.dispatch_plan import ActiveJob
from shared.domain.job import JobVerb
from shared.domain.schedule import ScheduleKind
from shared.errors import JobNotFound
from shared.jobs.messages import BackupJob
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.signed_repository import NOON

DEMO = cluster_name("demo")
DAY = timedelta(days=1)
ENTRY = AgendaEntry(DEMO, ScheduleKind.FULL, "0 3 * * *", timedelta(minutes=5), NOON)
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


def put(catalogue: Catalogue, *entries: AgendaEntry) -> None:
    catalogue.change_agenda(AgendaChanges(entries), "digest")


def started(entry: AgendaEntry = ENTRY) -> ServedTick:
    """The decision to start what is due of it."""
    tick = entry.tick_at(entry.next_at)
    assert tick is not None
    job = BackupJob(job_id=tick.job_id, cluster=tick.cluster, kind=BackupKind.FULL, due=tick.due)
    return ServedTick(entry, entry.after(tick), tick, job=job)


def test_an_agenda_is_kept_as_it_was_put(catalogue: Catalogue) -> None:
    assert catalogue.agenda_digest() is None
    later = replace(ENTRY, kind=ScheduleKind.DRILL_QUICK, next_at=NOON + DAY, skipped=2)
    other = replace(later, cluster=cluster_name("other"), served=NOON)
    put(catalogue, later, other, ENTRY)

    assert catalogue.agenda_digest() == "digest"
    assert catalogue.agenda() == [ENTRY, later, other]
    assert catalogue.agenda(DEMO) == [ENTRY, later]
    assert catalogue.often_skipped(2) == [later, other]
    assert catalogue.often_skipped(3) == []
    changed = replace(later, cron="0 4 * * *", skipped=0)
    catalogue.change_agenda(AgendaChanges((changed,), (ENTRY.key,)), "another")
    assert catalogue.agenda(DEMO) == [changed]
    assert catalogue.agenda_digest() == "another"


def test_only_what_is_due_is_read_the_oldest_first(catalogue: Catalogue, dsn: str) -> None:
    clusters = [cluster_name(f"c{number}") for number in range(2000)]
    put(
        catalogue,
        *(
            replace(ENTRY, cluster=cluster, next_at=NOON + number * timedelta(minutes=1))
            for number, cluster in enumerate(clusters)
        ),
    )

    due = catalogue.due_entries(NOON + timedelta(minutes=4), 3)
    with psycopg.connect(dsn) as connection:
        connection.execute("ANALYZE agenda")
        plan = connection.execute(f"EXPLAIN {DUE}", [["full"], NOON, 3]).fetchall()

    assert [entry.cluster for entry in due] == clusters[:3]
    assert "Seq Scan" not in str(plan)


def test_a_backlog_of_one_kind_hides_no_other(catalogue: Catalogue) -> None:
    backlog = [
        replace(ENTRY, cluster=cluster_name(f"c{number}"), kind=ScheduleKind.AUDIT)
        for number in range(5)
    ]
    full = replace(ENTRY, next_at=NOON + timedelta(minutes=1))
    put(catalogue, *backlog, full)

    due = catalogue.due_entries(NOON + timedelta(minutes=1), 2)

    assert due == [*backlog[:2], full]


def test_an_entry_that_was_changed_since_it_was_read_is_not_moved(catalogue: Catalogue) -> None:
    put(catalogue, ENTRY)
    put(catalogue, changed := replace(ENTRY, cron="0 4 * * *"))
    assert catalogue.serve([started()], NOON) == set()
    assert catalogue.agenda() == [changed]


def test_what_was_served_meanwhile_stays_served_when_the_schedule_changes(
    catalogue: Catalogue,
) -> None:
    put(catalogue, ENTRY)
    catalogue.serve([served := started()], NOON)
    put(catalogue, replace(ENTRY, cron="30 2 * * *"))
    [entry] = catalogue.agenda()
    assert (entry.cron, entry.served) == ("30 2 * * *", served.due)
    assert entry.tick_at(NOON) is None


def test_a_served_tick_moves_on_and_its_job_waits_to_be_sent(catalogue: Catalogue) -> None:
    put(catalogue, ENTRY)
    served = started()

    assert catalogue.serve([served], NOON) == {ENTRY.key}

    assert catalogue.agenda() == [served.after]
    assert catalogue.active_jobs() == [ActiveJob(DEMO, JobVerb.BACKUP, ScheduleKind.FULL)]
    assert catalogue.claim_unsent(NOON) == [served.job]
    assert catalogue.serve([served], NOON) == set()
    assert catalogue.serve([started(replace(ENTRY, skipped=9))], NOON) == set()


def test_s02_eight_instances_make_one_job_of_one_tick(catalogue: Catalogue) -> None:
    put(catalogue, ENTRY)
    barrier = threading.Barrier(8)

    def serve(_: int) -> int:
        barrier.wait()
        return len(catalogue.serve([started()], NOON))

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(serve, range(8))) == [0] * 7 + [1]
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: catalogue.claim_unsent(NOON), range(8)))
    assert [job for claim in claims for job in claim] == [started().job]


def test_a_passed_tick_makes_no_job_and_is_not_served_again(catalogue: Catalogue) -> None:
    put(catalogue, ENTRY)
    begun = started()
    assert begun.tick is not None
    passed = replace(begun, job=None, passed="still-running")

    assert catalogue.serve([passed], NOON) == {ENTRY.key}
    put(catalogue, ENTRY)  # somebody set the agenda back: a tick is served once all the same
    assert catalogue.serve([begun], NOON) == set()

    assert catalogue.active_jobs() == []
    with pytest.raises(JobNotFound):
        catalogue.job(begun.tick.job_id)


def test_an_entry_may_move_on_without_a_tick(catalogue: Catalogue) -> None:
    put(catalogue, ENTRY)
    assert catalogue.serve([ServedTick(ENTRY, replace(ENTRY, next_at=NOON + DAY))], NOON) == set()
    assert catalogue.due_entries(NOON, 10) == []
    assert catalogue.serve([], NOON) == set()


def test_of_a_batch_each_is_decided_for_itself(catalogue: Catalogue) -> None:
    entries = [replace(ENTRY, cluster=cluster_name(f"c{number}")) for number in range(300)]
    put(catalogue, *entries)
    catalogue.serve([started(one) for one in entries[:100]], NOON)

    new = catalogue.serve([started(one) for one in entries], NOON)

    assert new == {one.key for one in entries[100:]}
    assert len(catalogue.active_jobs()) == 300


def test_kinds_of_another_release_are_left_alone(catalogue: Catalogue, dsn: str) -> None:
    put(catalogue, ENTRY)
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE agenda SET kind = 'of-tomorrow'")
    assert catalogue.agenda() == []
    assert catalogue.due_entries(NOON + DAY, 10) == []
