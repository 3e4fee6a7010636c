"""Every few minutes: what is safe, what is promised, and what does not keep its promise."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Final

import azure.functions as func

from functions.fleet_gauges import record_findings
from functions.freshness_watch import watch_fleet
from functions.job_watch import watch_jobs
from functions.looks import look
from functions.replication_watch import watch_replication
from functions.schedule_watch import watch_schedule
from functions.settings_watch import watch_settings
from functions.wal_watch import watch
from functions.wiring import Services, services
from shared.errors import PgkeepError
from shared.event_log import log_event

blueprint = func.Blueprint()

_OF_THE_FLEET: Final[tuple[Callable[[Services], None], ...]] = (
    watch_fleet,
    watch_schedule,
    watch_jobs,
    watch_replication,
    watch_settings,
    record_findings,
)
# An archive is listed for each cluster: what is not looked at by then comes in a later look, so
# that the parts that are about all clusters have their time before the host ends the function.
_WAL_PATIENCE: Final = timedelta(minutes=4)
_AT_ONCE: Final = 4  # as many connections as the app's store keeps
_BETWEEN_LOOKS_AT_THE_CLOCK: Final = 64


# No monitor: a look that was missed is made up for by the next one.
@blueprint.timer_trigger("timer", schedule="%PGKEEP_FRESHNESS_SCHEDULE%", use_monitor=False)
def timer_freshness(timer: func.TimerRequest) -> None:
    found = services()
    with look(found, "freshness"):
        look_at_all(found)


def look_at_all(services: Services) -> None:
    """One part's trouble does not hide the others'; the first is raised when all were looked at,
    so that the host counts the run as failed.
    """
    failures = list(_failures_of_wal(services))
    for part in _OF_THE_FLEET:
        error = _failure(part.__name__, partial(part, services))
        failures += [error] if error else []
    if failures:
        raise failures[0]


def _failures_of_wal(services: Services) -> Iterator[PgkeepError]:
    """In another order each time, so that not always the same are left out when time is up."""
    began = services.clock()
    salt = began.isoformat()
    waiting = iter(
        sorted(
            services.settings.cluster,
            key=lambda cluster: hashlib.sha256(f"{salt} {cluster.name}".encode()).digest(),
        )
    )
    with ThreadPoolExecutor(_AT_ONCE, "wal-watch") as pool:
        while services.clock() - began <= _WAL_PATIENCE:
            some = list(islice(waiting, _BETWEEN_LOOKS_AT_THE_CLOCK))
            if not some:
                return
            looks = [(cluster.name, partial(watch, services, cluster)) for cluster in some]
            yield from filter(None, pool.map(lambda look: _failure(*look), looks))
    if left := len(list(waiting)):
        log_event("freshness-cut-short", level=logging.WARNING, left=left)


def _failure(what: str, look: Callable[[], None]) -> PgkeepError | None:
    try:
        look()
    except PgkeepError as error:
        level, fact = logging.ERROR, error.fact
        log_event("freshness-unknown", level=level, of=what, code=error.code, fact=fact)
        return error
    return None
