"""Blob triggers with source EventGrid, played over Azurite, which has no Event Grid.

Polls the listing of committed blobs (staged blocks are not in it), delivers each new one at least
once and in no promised order, tries a failing one five times in all and then leaves a message in
the poison queue of the same account, as the blob extension does.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.functions.blob import InputStream
from azure.storage.blob import BlobServiceClient

from local.functions_host.app_settings import AppSettings, open_blobs, open_queues, resolve
from local.functions_host.indexing import AppRefused, HostedFunction
from local.functions_host.invocation import LOG, invoke
from local.functions_host.queue_messages import put_message
from local.functions_host.receipts import BlobEvent, Receipts

MAX_TRIES = 5  # extensions.blobs.poisonBlobThreshold
POISON_QUEUE = "webjobs-blobtrigger-poison"
POLL_S = 0.5
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class BlobPath:
    """`container/a/{x}/b.json`: `{x}` is one folder name, or, at the very end, any rest."""

    container: str
    prefix: str
    pattern: re.Pattern[str]

    @classmethod
    def parse(cls, path: str) -> "BlobPath":
        container, _, rest = path.strip("/").partition("/")
        if "{" in container or not rest:
            raise AppRefused(f"blob path {path!r} must begin with the name of a container")
        literals = _PARAMETER.split(rest)[::2]
        pattern = "([^/]+)".join(re.escape(part) for part in literals)
        if rest.endswith("}"):
            pattern = pattern.removesuffix("([^/]+)") + "(.+)"
        return cls(container, literals[0], re.compile(pattern))

    def matches(self, name: str) -> bool:
        return self.pattern.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Subscription:
    function: HostedFunction
    path: BlobPath
    client: BlobServiceClient


class BlobTriggers:
    """All blob functions of an app; `run` is the body of their thread."""

    def __init__(
        self,
        functions: Sequence[HostedFunction],
        settings: AppSettings,
        state: Path,
        pool: Executor,
    ) -> None:
        self._subscriptions = [_subscription(function, settings) for function in functions]
        self._settings = settings
        self._receipts = Receipts(state / "receipts.sqlite")
        self._pool = pool
        self._running: dict[BlobEvent, tuple[Subscription, Future[None]]] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then waits for what still runs, so that its receipts are written."""
        while not stop.wait(POLL_S if self._subscriptions else None):
            self.poll()
        self._collect(wait=True)
        self._receipts.close()
        for subscription in self._subscriptions:
            subscription.client.close()

    def poll(self) -> None:
        self._collect()
        for subscription in self._subscriptions:
            try:
                for event in list(self._new_events(subscription)):
                    future = self._pool.submit(_deliver, subscription, event)
                    self._running[event] = (subscription, future)
            except AzureError as error:
                LOG.warning("%s: listing failed: %s", subscription.function.name, error)

    def _new_events(self, subscription: Subscription) -> Iterator[BlobEvent]:
        name, path = subscription.function.name, subscription.path
        container = subscription.client.get_container_client(path.container)
        for blob in container.list_blobs(name_starts_with=path.prefix):
            etag = str(blob.etag).strip('"')  # a listing gives it bare, events give it quoted
            event = BlobEvent(name, path.container, str(blob.name), f'"{etag}"')
            known = event in self._running or self._receipts.is_done(event)
            if path.matches(event.name) and not known:
                yield event

    def _collect(self, *, wait: bool = False) -> None:
        """Write the receipts of the deliveries that ended (all of them, when `wait`)."""
        for event, (subscription, future) in list(self._running.items()):
            if not wait and not future.done():
                continue
            del self._running[event]
            if future.exception() is None:
                self._receipts.finish(event)
            elif self._receipts.count_failure(event) >= MAX_TRIES:
                self._set_aside(event, str(subscription.function.trigger["connection"]))

    def _set_aside(self, event: BlobEvent, connection: str) -> None:
        what = {"Type": "BlobTrigger", "FunctionId": event.function, "BlobType": "BlockBlob"}
        which = {"ContainerName": event.container, "BlobName": event.name, "ETag": event.etag}
        try:
            with open_queues(connection, self._settings) as queues:
                queue = queues.get_queue_client(POISON_QUEUE)
                put_message(queue, json.dumps(what | which).encode())
        except AzureError as error:  # without a receipt the next poll delivers it again
            LOG.warning("%s: no poison message: %s", event.function, error)
            return
        self._receipts.finish(event)
        LOG.error("%s gave up on %s/%s", event.function, event.container, event.name)


def _subscription(function: HostedFunction, settings: AppSettings) -> Subscription:
    if str(function.trigger.get("source")) != "EventGrid":
        raise AppRefused(f"function {function.name}: only blob triggers with source EventGrid")
    path = BlobPath.parse(resolve(str(function.trigger["path"]), settings))
    return Subscription(function, path, open_blobs(str(function.trigger["connection"]), settings))


def _deliver(subscription: Subscription, event: BlobEvent) -> None:
    blob = subscription.client.get_blob_client(event.container, event.name)
    try:
        content = blob.download_blob()
    except ResourceNotFoundError:
        return  # deleted since: the real host finds nothing either
    data = content.readall()
    stream = InputStream(
        data=data, name=f"{event.container}/{event.name}", uri=blob.url, length=len(data)
    )
    invoke(subscription.function, stream)
