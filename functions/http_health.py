"""GET api/health: is the control plane whole? For probes: anonymous, and says nothing else."""

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from threading import Lock
from typing import Final, Literal

import azure.functions as func

from functions.http_protocol import Body, respond
from functions.wiring import services
from shared.errors import PgkeepError

# Everybody may ask, as often as they like; the catalogue is asked this often, on one connection.
_ASKED_EVERY: Final = timedelta(seconds=5)
_ONE_AT_A_TIME: Final = Lock()

blueprint = func.Blueprint()


class Health(Body):
    """`degraded`: the catalogue or the settings fail us. Backups and restores go on regardless."""

    status: Literal["ok", "degraded"]


@blueprint.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def http_health(req: func.HttpRequest) -> func.HttpResponse:
    """Always 200: a probe that restarts the app would not bring the catalogue back."""
    try:
        found = services()
    except PgkeepError:
        return respond(Health(status="degraded"))
    moment = found.clock().timestamp() // _ASKED_EVERY.total_seconds()
    with _ONE_AT_A_TIME:  # the others wait for its answer, and find it
        whole = _answers(found.catalogue.check, moment)
    return respond(Health(status="ok" if whole else "degraded"))


@lru_cache(maxsize=1)
def _answers(check: Callable[[], None], moment: float) -> bool:
    """Whether the catalogue does, found out once in a `moment`."""
    try:
        check()
    except PgkeepError:
        return False
    return True
