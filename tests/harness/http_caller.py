"""Callers of the HTTP interface: real requests through the host's own routing, with real tokens.

Only the socket is left out: werkzeug's test client speaks WSGI with the host of local/.
"""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from werkzeug.test import Client, TestResponse

from functions.wiring import Services
from local.access_tokens import make_access_key, sign_token
from local.functions_host.http_routes import HttpTriggers
from local.functions_host.indexing import index_app
from shared.settings import Access, AzureRepository, Http, LocalTokens, RestoreTarget
from shared.telemetry.meters import NO_TELEMETRY, Telemetry
from tests.harness.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
SCRATCH = RestoreTarget(name="scratch", directory="/srv/restores")
HOME = "https://pgkeep.blob.core.windows.net"
MANY = Http(changes_per_minute=10_000, all_changes_per_minute=10_000, reads_per_minute=10_000)
OTHERS = RestoreTarget(name="others", directory="/srv/others", clusters=("other",))


@dataclass
class HttpCaller:
    """Speaks to `app` as whoever a test wants to be; `access` and `limits` are the settings' own.

    The clock of a test stands still, and so budgets would never be whole again: they are large.
    """

    plane: ControlPlane
    key: Path
    access: Access | None
    app: HttpTriggers
    behind_easy_auth: bool = False
    limits: Http = MANY
    telemetry: Telemetry = NO_TELEMETRY
    secondary_url: str | None = None
    log: list[TestResponse] = field(default_factory=list)

    def services(self) -> Services:
        services = self.plane.services
        changes = {"access": self.access, "target": (SCRATCH, OTHERS), "profile": "development"}
        settings = services.settings.model_copy(update={**changes, "http": self.limits})
        if self.secondary_url is not None:
            place = AzureRepository(account_url=HOME, secondary_url=self.secondary_url)
            settings = settings.model_copy(update={"repository": place})
        return replace(
            services,
            settings=settings,
            behind_easy_auth=self.behind_easy_auth,
            telemetry=self.telemetry,
        )

    def token(self, *roles: str, name: str = "anna", **changes: Any) -> str:
        now: datetime = changes.pop("now", self.plane.clock())
        lifetime = changes.pop("lifetime", timedelta(minutes=5))
        return sign_token(self.key, name=name, roles=roles, now=now, lifetime=lifetime)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> TestResponse:
        """The answer as it is; `body` is JSON, or bytes as they are."""
        given = {"authorization": f"Bearer {token}"} if token else {}
        content: dict[str, Any] = {} if body is None else {"json": body}
        if isinstance(body, bytes):
            content = {"data": body, "content_type": "application/json"}
        response = Client(self.app).open(
            path,
            method=method,
            headers={**given, **(headers or {})},
            query_string=params,
            **content,
        )
        self.log.append(response)
        return response

    def get(self, path: str, role: str = "reader", **params: str) -> tuple[int, Any]:
        response = self.send("GET", path, token=self.token(role), params=params)
        return response.status_code, response.json

    def post(
        self,
        path: str,
        body: object,
        role: str = "operator",
        *,
        name: str = "anna",
        key: str | None = None,
    ) -> tuple[int, Any]:
        headers = {} if key is None else {"idempotency-key": key}
        token = self.token(role, name=name)
        response = self.send("POST", path, body, token=token, headers=headers)
        return response.status_code, response.json


@contextmanager
def calling(plane: ControlPlane, folder: Path) -> Iterator[HttpCaller]:
    """Within the block the function app of this process works on `plane`."""
    key = folder / "access.pem"
    access = LocalTokens(type="local", public_key=make_access_key(key))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(8))
        functions = [item for item in index_app(ROOT) if item.kind == "httpTrigger"]
        triggers = HttpTriggers(functions, {}, "api", "no key", pool)
        caller = HttpCaller(plane, key, access, triggers)
        for name, module in list(sys.modules.items()):
            if name.startswith("functions.http_") and hasattr(module, "services"):
                stack.enter_context(patch.object(module, "services", caller.services))
        yield caller
