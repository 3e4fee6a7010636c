"""Every few minutes: how much of each cluster's WAL is safe, and what is wrong with it."""

import logging

import azure.functions as func

from functions.wal_watch import watch
from functions.wiring import Services, services
from shared.errors import PgkeepError
from shared.event_log import log_event

blueprint = func.Blueprint()


# No monitor: a look that was missed is made up for by the next one.
@blueprint.timer_trigger("timer", schedule="%PGKEEP_FRESHNESS_SCHEDULE%", use_monitor=False)
def timer_freshness(timer: func.TimerRequest) -> None:
    look_at_all(services())


def look_at_all(services: Services) -> None:
    """One cluster's trouble does not hide the others'; the first is raised when all were looked at,
    so that the host counts the run as failed.
    """
    failures = []
    for cluster in services.settings.cluster:
        try:
            watch(services, cluster)
        except PgkeepError as error:
            failures.append(error)
            level, fact = logging.ERROR, error.fact
            log_event(
                "freshness-unknown", level=level, cluster=cluster.name, code=error.code, fact=fact
            )
    if failures:
        raise failures[0]
