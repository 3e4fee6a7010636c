"""Restore requests whose time is over: written down, by the hourly look.

Nothing waits for that. From `lapses_at` on a request shows as lapsed and every decision about it is
refused, whoever looks; this makes it a fact of the audit trail and of the catalogue.
"""

from contextlib import suppress
from datetime import datetime

from functions import audit_trail
from functions.callers import Caller
from functions.wiring import Services
from shared.domain.restore_request import (
    NOBODY,
    Decision,
    RestoreDecided,
    RestoreRequest,
    RestoreVerdict,
)

_NOBODY = Caller(NOBODY.id, NOBODY.name, frozenset())


def lapse_restores(services: Services) -> None:
    now = services.clock()
    for request in services.catalogue.overdue_restores(now):
        _lapse(services, request, now)


def _lapse(services: Services, request: RestoreRequest, now: datetime) -> None:
    details = {"requested_by": request.requested_by.id, "lapses_at": request.lapses_at.isoformat()}
    audit_trail.record(services, _NOBODY, "restore.lapse", f"restore {request.id}", details)
    with suppress(RestoreDecided):  # in time, by the clock of another instance
        services.catalogue.decide_restore(request.id, RestoreVerdict(Decision.LAPSE, NOBODY, now))
