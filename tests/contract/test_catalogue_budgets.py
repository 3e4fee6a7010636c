"""The catalogue's port for budgets of requests: counted once, however many instances count."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from shared.catalogue.ports import Catalogue
from shared.domain.request_budget import Budget
from shared.errors import RequestsTooMany
from tests.harness.both_catalogues import catalogue_of
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.signed_repository import NOON

pytestmark = pytest.mark.integration

BOTH_CATALOGUES = True
ANNA, BOB, ALL = Budget("anna", 3), Budget("bob", 3), Budget("all", 4)


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return catalogue_of(request)


def allowed(catalogue: Catalogue, *budgets: Budget, after_s: float = 0) -> bool:
    try:
        catalogue.spend(budgets, NOON + timedelta(seconds=after_s))
    except RequestsTooMany:
        return False
    return True


def test_a_budget_is_spent_and_drips_back(catalogue: Catalogue) -> None:
    assert [allowed(catalogue, ANNA) for _ in range(5)] == [True, True, True, False, False]
    assert [allowed(catalogue, BOB) for _ in range(2)] == [True, True]
    assert not allowed(catalogue, ANNA, after_s=19.9)
    assert allowed(catalogue, ANNA, after_s=20)
    assert not allowed(catalogue, ANNA, after_s=20)
    assert [allowed(catalogue, ANNA, after_s=100) for _ in range(4)] == [True, True, True, False]


def test_of_two_budgets_both_are_spent_or_none(catalogue: Catalogue) -> None:
    assert [allowed(catalogue, ANNA, ALL) for _ in range(10)] == [True] * 3 + [False] * 7
    # What was refused to Anna has cost the others nothing, and what is refused to all not Bob.
    assert [allowed(catalogue, BOB, ALL) for _ in range(3)] == [True, False, False]
    assert [allowed(catalogue, BOB) for _ in range(3)] == [True, True, False]


def test_a_budget_that_is_whole_may_be_forgotten_and_no_other_is(catalogue: Catalogue) -> None:
    assert [allowed(catalogue, ANNA) for _ in range(3)] == [True] * 3
    catalogue.forget_whole_budgets(NOON + timedelta(seconds=59))
    assert not allowed(catalogue, ANNA)
    catalogue.forget_whole_budgets(NOON + timedelta(seconds=60))
    assert allowed(catalogue, ANNA)


def test_however_many_ask_at_once_no_more_is_spent_than_there_is(catalogue: Catalogue) -> None:
    names = ["anna", "bob", "cleo", "dora"] * 10
    everybody = Budget("all", 10)

    def ask(name: str) -> bool:
        return allowed(catalogue, Budget(name, 5), everybody)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, names)) == 10
