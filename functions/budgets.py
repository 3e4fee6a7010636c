"""How much a caller may ask for in a minute, counted in the catalogue for all instances.

Only requests of callers whom we know are counted, so nobody else can use up their budgets; and only
of those who have the role in the budget of all, so that strangers in the tenant cannot, either.
"""

import logging
from collections.abc import Iterator

from functions.callers import Caller
from functions.wiring import Services
from shared.domain.request_budget import Budget
from shared.errors import RequestsTooMany
from shared.event_log import log_event
from shared.settings import Http


def spend(
    services: Services, who: Caller, *, changes: bool, permitted: bool, weight: int = 1
) -> None:
    """Raises RequestsTooMany. `weight` is what a read costs, in those of ordinary ones."""
    limits = services.settings.http
    if changes:
        budgets = [*_of_changes(limits, who, permitted=permitted)]
    else:
        budgets = [Budget(f"reads of {who.id}", limits.reads_per_minute, weight)]
    try:
        services.catalogue.spend(budgets, services.clock())
    except RequestsTooMany as error:
        log_event(
            "caller-slowed",
            level=logging.WARNING,
            caller=who.id,
            fact=error.fact,
            wait_s=error.wait_s,
        )
        raise


def _of_changes(limits: Http, who: Caller, *, permitted: bool) -> Iterator[Budget]:
    """No id of a caller holds a blank, so no two owners read alike."""
    yield Budget(f"changes of {who.id}", limits.changes_per_minute)
    if permitted:
        yield Budget("changes of all callers", limits.all_changes_per_minute)
