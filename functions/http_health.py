"""GET api/health: is the control plane whole? For probes: anonymous, and says nothing else."""

from typing import Literal

import azure.functions as func

from functions.http_protocol import Body, respond
from functions.wiring import services
from shared.errors import PgkeepError

blueprint = func.Blueprint()


class Health(Body):
    """`degraded`: the catalogue or the settings fail us. Backups and restores go on regardless."""

    status: Literal["ok", "degraded"]


@blueprint.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def http_health(req: func.HttpRequest) -> func.HttpResponse:
    """Always 200: a probe that restarts the app would not bring the catalogue back."""
    try:
        services().catalogue.check()
    except PgkeepError:
        return respond(Health(status="degraded"))
    return respond(Health(status="ok"))
