"""Composition root of the function app: settings to adapters, anew when the settings changed.

Triggers call `services()`; what they do is a function of the `Services` that they are given, so
tests hand in their own. Nothing is opened at import: indexing the app must stay quick and safe.
"""

import logging
import os
import ssl
import time
import weakref
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID, uuid4

from functions.followed_settings import FollowedSettings, SettingsSource, SettingsTrouble
from shared.errors import PgkeepError
from shared.event_log import LOGGER, JsonLines, log_event
from shared.jobs.messages import EVENT_QUEUE, JOB_QUEUES
from shared.settings import Settings
from shared.system_trust import lend_trust
from shared.telemetry.meters import NO_TELEMETRY, Telemetry

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
_ROLE = "pgkeep-control"
# Connections to storage; functions read small documents, one after the other.
_THREADS = 4


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Services:
    """Everything that a function may touch; `queues` are those of jobs, `events` that of
    what workers report.

    `policies` None: nobody may tell what the storage account does by itself. `replication` None: it
    has no copy in a second region that can be read.
    `behind_easy_auth`: the platform authenticates callers and strips forged names of them.
    `settings_trouble`: why a changed document of settings is not followed.
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
    telemetry: Telemetry = NO_TELEMETRY
    settings_trouble: Callable[[], SettingsTrouble | None] = lambda: None


@runtime_checkable
class _Closes(Protocol):
    def close(self) -> None: ...


def services() -> Services:
    """Those of the settings as they are; whoever calls keeps what it got to its end.

    After a first failure the next call tries anew, after a later one the last good settings hold.
    Raises SettingsInvalid, CatalogueUnavailable, CatalogueSchemaTooNew and CatalogueSchemaBroken.
    """
    return _followed().current()


@cache
def _followed() -> FollowedSettings[Services]:
    from functions.settings_marks import settings_mark
    from shared.adapters import load_settings

    lend_trust(os.environ, ssl.get_default_verify_paths())
    source = SettingsSource(settings_mark(os.environ), load_settings)
    return FollowedSettings(source, _wired, _now, time.monotonic)


def _wired(settings: Settings) -> Services:
    """The app is the catalogue's only writer, so it brings its schema up to date by itself;
    instances that start at once wait for one another.
    """
    from shared import adapters
    from shared.catalogue.migrate import migrate
    from shared.catalogue.postgres_catalogue import PostgresCatalogue

    login = adapters.catalogue_login(settings)
    migrate(login, _now())
    store = adapters.blob_store(settings.repository, _THREADS)
    queues = {name: adapters.job_queue(settings, name) for name in JOB_QUEUES}
    events = adapters.job_queue(settings, EVENT_QUEUE)
    wired = Services(
        settings=settings,
        store=store,
        queues=queues,
        events=events,
        catalogue=PostgresCatalogue(login),
        pinned=adapters.pinned_keys(settings.keys),
        clock=_now,
        new_id=uuid4,
        behind_easy_auth=os.environ.get(_EASY_AUTH_VARIABLE, "").lower() == "true",
        policies=adapters.account_policies(settings.account, _now),
        replication=adapters.replication_status(settings.repository),
        telemetry=_observe(),
        settings_trouble=_followed().trouble,
    )
    # Invocations that run with them may still do so when others have replaced them.
    weakref.finalize(wired, _close, store, events, *queues.values()).atexit = False
    return wired


def _close(*clients: object) -> None:
    """Connections of what nobody uses any more; a directory has none."""
    for client in clients:
        if isinstance(client, _Closes):
            client.close()


def _now() -> datetime:
    return datetime.now(UTC)


@cache
def _observe() -> Telemetry:
    """Events go to the host's log as JSON lines, or to Azure Monitor as they are.

    Not to both: the host sends its log to Azure Monitor, where each would be a second row. The
    setting that keeps it from doing so, PYTHON_ENABLE_OPENTELEMETRY, breaks every invocation with
    some releases of the platform's worker.
    """
    host = HostLines()
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.handlers[:] = [host]
    logging.getLogger("azure").setLevel(logging.WARNING)  # it logs each request
    connection_string = os.environ.get(_TELEMETRY_VARIABLE)
    if not connection_string:
        return NO_TELEMETRY
    from shared.telemetry.azure_monitor import export_to_azure_monitor

    try:
        telemetry = export_to_azure_monitor(connection_string, _ROLE).telemetry
    except PgkeepError as error:
        level, code, fact = logging.ERROR, error.code, error.fact
        log_event("telemetry-not-exported", level=level, code=code, fact=fact)
        return NO_TELEMETRY
    host.addFilter(_tells_of_sending)
    return telemetry


def _tells_of_sending(record: logging.LogRecord) -> bool:
    """What Azure Monitor will not hear."""
    return record.getMessage() == "telemetry-export-failed"


class HostLines(logging.Handler):
    """Hands each event to the host's own handlers, as one JSON line."""

    def emit(self, record: logging.LogRecord) -> None:
        line = copy(record)
        line.msg, line.args = JsonLines().format(record), None
        line.exc_info = line.exc_text = None  # the line holds it
        logging.getLogger().handle(line)
