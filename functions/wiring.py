"""Composition root of the function app: settings to adapters, once per process.

Triggers call `services()`; what they do is a function of the `Services` that they are given, so
tests hand in their own. Nothing is opened at import: indexing the app must stay quick and safe.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from shared.event_log import LOGGER, JsonLines
from shared.jobs.messages import EVENT_QUEUE, JOB_QUEUES
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.catalogue.ports import Catalogue
    from shared.jobs.queue import JobQueue
    from shared.repository.account_policies import PolicyReader
    from shared.repository.blob_store import BlobStore
    from shared.repository.replication_status import ReplicationStatus
    from shared.repository.signatures import PinnedKeys

# App Service sets it, and nobody may in an app's settings (reference-app-settings of its docs).
_EASY_AUTH_VARIABLE = "WEBSITE_AUTH_ENABLED"
_TELEMETRY_VARIABLE = "APPLICATIONINSIGHTS_CONNECTION_STRING"
# Connections to storage; functions read small documents, one after the other.
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a function may touch; `queues` are those of jobs, `events` that of
    what workers report.

    `policies` None: nobody may tell what the storage account does by itself. `replication` None: it
    has no copy in a second region that can be read.
    `behind_easy_auth`: the platform authenticates callers and strips forged names of them.
    """

    settings: Settings
    store: "BlobStore"
    queues: "Mapping[str, JobQueue]"
    events: "JobQueue"
    catalogue: "Catalogue"
    pinned: "PinnedKeys"
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    behind_easy_auth: bool = False
    policies: "PolicyReader | None" = None
    replication: "ReplicationStatus | None" = None


@cache
def services() -> Services:
    """The services of this process; after a failure the next call tries anew.

    The app is the catalogue's only writer, so it brings its schema up to date by itself; instances
    that start at once wait for one another. Raises SettingsInvalid, CatalogueUnavailable,
    CatalogueSchemaTooNew and CatalogueSchemaBroken.
    """
    from shared import adapters
    from shared.catalogue.migrate import migrate
    from shared.catalogue.postgres_catalogue import PostgresCatalogue

    settings = adapters.load_settings()
    login = adapters.catalogue_login(settings)
    migrate(login, _now())
    catalogue = PostgresCatalogue(login)
    _observe()
    return Services(
        settings=settings,
        store=adapters.blob_store(settings.repository, _THREADS),
        queues={name: adapters.job_queue(settings, name) for name in JOB_QUEUES},
        events=adapters.job_queue(settings, EVENT_QUEUE),
        catalogue=catalogue,
        pinned=adapters.pinned_keys(settings.keys),
        clock=_now,
        new_id=uuid4,
        behind_easy_auth=os.environ.get(_EASY_AUTH_VARIABLE, "").lower() == "true",
        policies=adapters.account_policies(settings.account, _now),
        replication=adapters.replication_status(settings.repository),
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _observe() -> None:
    """Our events go through the host's own handlers, each as one JSON line."""
    if os.environ.get(_TELEMETRY_VARIABLE):
        from azure.monitor.opentelemetry import configure_azure_monitor

        configure_azure_monitor(logger_name=LOGGER.name)
    LOGGER.addFilter(_as_json_line)
    logging.getLogger("azure").setLevel(logging.WARNING)  # it logs each request


def _as_json_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = JsonLines().format(record), None
    record.exc_info = None  # the line holds it
    return True
