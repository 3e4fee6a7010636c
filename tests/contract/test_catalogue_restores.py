"""The catalogue's port for restores that people ask for: decided once, by whoever comes first."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from shared.catalogue.migrate import migrate, release_migrations
from shared.catalogue.ports import Catalogue
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.catalogue.restore_port import RestoreNotFound
from shared.domain.cluster import ClusterName
from shared.domain.restore_request import (
    NOBODY,
    Decision,
    OwnApproval,
    Person,
    RestoreDecided,
    RestoreLapsed,
    RestoreRequest,
    RestoreState,
    RestoreVerdict,
)
from shared.errors import JobNotFound, PgkeepError, RequestConflict
from shared.jobs.messages import RestoreJob
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.signed_repository import NOON

pytestmark = pytest.mark.integration

ANNA, BOB = Person("anna-oid", "Anna"), Person("bob-oid", "Bob")
DEMO = ClusterName("demo")
BOTH_CATALOGUES = True


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


def asked(number: int = 1, **changes: object) -> RestoreRequest:
    request = RestoreRequest(
        id=UUID(int=number),
        cluster=DEMO,
        target="scratch",
        label=None,
        to="latest",
        requested_by=ANNA,
        requested_at=NOON + timedelta(minutes=number),
        lapses_at=NOON + timedelta(days=7),
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def verdict(decision: Decision, by: Person = BOB, reason: str | None = None) -> RestoreVerdict:
    return RestoreVerdict(decision, by, NOON + timedelta(hours=1), reason)


def test_a_request_is_kept_as_it_was_first_asked(catalogue: Catalogue) -> None:
    first = asked(label="20261122T120000Z-F-aaaa", to="2026-11-22T10:00:00+00:00")
    assert catalogue.ask_restore(first) == first
    again = replace(first, requested_at=NOON + timedelta(days=1))
    assert catalogue.ask_restore(again) == first
    for other in (replace(first, to="latest"), replace(first, requested_by=BOB)):
        with pytest.raises(RequestConflict):
            catalogue.ask_restore(other)
    assert catalogue.restore_request(first.id) == first
    with pytest.raises(RestoreNotFound):
        catalogue.restore_request(UUID(int=99))
    with pytest.raises(RestoreNotFound):
        catalogue.decide_restore(UUID(int=99), verdict(Decision.REFUSE))


def test_an_approval_by_another_person_makes_the_job_in_the_same_step(
    catalogue: Catalogue,
) -> None:
    request = catalogue.ask_restore(asked(label="20261122T120000Z-F-aaaa"))
    with pytest.raises(OwnApproval):
        catalogue.decide_restore(request.id, verdict(Decision.APPROVE, by=ANNA))
    assert catalogue.restore_request(request.id).state_at(NOON) is RestoreState.REQUESTED

    approved = catalogue.decide_restore(request.id, verdict(Decision.APPROVE, reason="drill"))

    assert approved == catalogue.restore_request(request.id)
    assert approved.verdict == verdict(Decision.APPROVE, reason="drill")
    job = catalogue.job(request.id).request
    assert isinstance(job, RestoreJob)
    assert (job.target, job.label, job.to) == ("scratch", request.label, "latest")
    assert (job.requested_by, job.approved_by) == ("anna-oid", "bob-oid")
    assert catalogue.claim_unsent(NOON) == [job]
    assert catalogue.decide_restore(request.id, verdict(Decision.APPROVE)) == approved
    with pytest.raises(RestoreDecided):
        catalogue.decide_restore(request.id, verdict(Decision.CANCEL))


@pytest.mark.parametrize("decision", [Decision.REFUSE, Decision.CANCEL])
def test_what_is_refused_or_cancelled_makes_no_job(
    catalogue: Catalogue, decision: Decision
) -> None:
    catalogue.ask_restore(asked())
    decided = catalogue.decide_restore(UUID(int=1), verdict(decision, by=ANNA))
    assert decided.state_at(NOON) is decision.state
    with pytest.raises(RestoreDecided):
        catalogue.decide_restore(UUID(int=1), verdict(Decision.APPROVE))
    with pytest.raises(JobNotFound):
        catalogue.job(UUID(int=1))


def test_h09_of_an_approval_and_a_cancellation_at_once_one_wins(
    catalogue: Catalogue,
) -> None:
    def decide(number: int, decision: Decision) -> str:
        try:
            decided = catalogue.decide_restore(UUID(int=number), verdict(decision))
            return decided.state_at(NOON).value
        except PgkeepError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        for number in range(1, 9):
            catalogue.ask_restore(asked(number))
            both = [
                pool.submit(decide, number, decision)
                for decision in (Decision.APPROVE, Decision.CANCEL)
            ]
            found = sorted(one.result() for one in both)
            state = catalogue.restore_request(UUID(int=number)).state_at(NOON)
            assert found == sorted([state.value, "restore-decided"])
            jobs = [job.job_id for job in catalogue.jobs(DEMO, limit=100)]
            assert (UUID(int=number) in jobs) == (state is RestoreState.APPROVED)


def test_requests_are_listed_in_pages_the_newest_first(catalogue: Catalogue) -> None:
    for number in range(1, 6):
        catalogue.ask_restore(asked(number, requested_at=NOON + timedelta(minutes=number // 2)))
    catalogue.ask_restore(asked(6, cluster=ClusterName("other")))
    catalogue.decide_restore(UUID(int=2), verdict(Decision.REFUSE))

    def listed(**given: object) -> list[int]:
        values = {"limit": 100, "now": NOON, **given}
        return [one.id.int for one in catalogue.restore_requests(**values)]  # type: ignore[arg-type]

    assert listed() == [6, 5, 4, 3, 2, 1]
    assert listed(limit=2) == [6, 5]
    assert listed(limit=2, before=UUID(int=5)) == [4, 3]
    assert listed(before=UUID(int=1)) == listed(before=UUID(int=77)) == []
    assert listed(cluster=DEMO) == [5, 4, 3, 2, 1]
    assert listed(state=RestoreState.REFUSED) == [2]
    assert listed(state=RestoreState.REQUESTED, cluster=DEMO) == [5, 4, 3, 1]


def test_what_nobody_decides_in_time_lapses_and_stays_so(catalogue: Catalogue) -> None:
    end = NOON + timedelta(days=7)
    early, late = asked(1), asked(2, lapses_at=end + timedelta(seconds=1))
    for request in (early, late):
        catalogue.ask_restore(request)

    def listed(state: RestoreState) -> list[int]:
        return [one.id.int for one in catalogue.restore_requests(state=state, now=end, limit=9)]

    assert catalogue.overdue_restores(end - timedelta(seconds=1)) == []
    assert catalogue.overdue_restores(end) == [early]
    assert (listed(RestoreState.REQUESTED), listed(RestoreState.LAPSED)) == ([2], [1])
    lapse = RestoreVerdict(Decision.LAPSE, NOBODY, end)
    for decision in (Decision.APPROVE, Decision.REFUSE, Decision.CANCEL):
        with pytest.raises(RestoreLapsed):
            catalogue.decide_restore(early.id, replace(verdict(decision), at=end))
    assert catalogue.decide_restore(early.id, lapse).verdict == lapse
    assert catalogue.decide_restore(early.id, replace(lapse, at=NOON)).verdict == lapse
    # A clock that is behind finds it over, too.
    with pytest.raises(RestoreLapsed):
        catalogue.decide_restore(early.id, verdict(Decision.APPROVE))
    assert catalogue.overdue_restores(end) == []
    assert (listed(RestoreState.REQUESTED), listed(RestoreState.LAPSED)) == ([2], [1])
    catalogue.decide_restore(late.id, replace(verdict(Decision.APPROVE), at=end))
    with pytest.raises(RestoreDecided):
        catalogue.decide_restore(late.id, lapse)
    with pytest.raises(JobNotFound):
        catalogue.job(early.id)


def test_a_job_carries_the_trace_of_its_approval(catalogue: Catalogue) -> None:
    catalogue.ask_restore(asked())
    catalogue.decide_restore(UUID(int=1), verdict(Decision.APPROVE), "00-ab-cd-01")
    [job] = catalogue.claim_unsent(NOON)
    assert job.traceparent == "00-ab-cd-01"


def test_requests_of_the_release_before_lapse_seven_days_after_they_were_made(
    server: CatalogueServer,
) -> None:
    dsn = server.empty_database()
    migrate(dsn, NOON, release_migrations()[:10])
    with psycopg.connect(dsn) as session:
        session.execute(
            "INSERT INTO restore_request (id, cluster, target, goal, requested_by,"
            " requested_by_name, requested_at) VALUES (%s, 'demo', 'x', 'latest', 'a', 'A', %s)",
            [UUID(int=1), NOON],
        )
    migrate(dsn, NOON)
    known = PostgresCatalogue(dsn).restore_request(UUID(int=1))
    assert known.lapses_at == NOON + timedelta(days=7)
