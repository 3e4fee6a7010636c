"""Queue triggers: visibility, renewal while a function runs, dequeue count, poison queues."""

import base64
import binascii
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.functions.queue import QueueMessage
from azure.storage.queue import QueueClient
from azure.storage.queue import QueueMessage as Received

from local.functions_host.app_settings import AppSettings, HostJson, open_queues, resolve
from local.functions_host.indexing import HostedFunction
from local.functions_host.invocation import LOG, invoke

VISIBILITY_S = 30
RENEW_AFTER_S = 10.0
POLL_S = 0.2


@dataclass(slots=True)
class Running:
    """A message that a function works on; `renewed` is the time of its newest pop receipt."""

    message: Received
    future: Future[object]
    renewed: float


class QueueTrigger:
    """One function on one queue."""

    def __init__(
        self, function: HostedFunction, settings: AppSettings, host: HostJson, pool: Executor
    ) -> None:
        self._function = function
        self._host = host
        self._pool = pool
        self._name = resolve(str(function.trigger["queueName"]), settings)
        self._service = open_queues(str(function.trigger["connection"]), settings)
        self._queue = self._service.get_queue_client(self._name)
        self._is_poison_queue = self._name.endswith("-poison")
        self._running: list[Running] = []

    def poll(self) -> None:
        """Finish what has ended, renew what runs, start what waits."""
        self._running = [item for item in self._running if not self._over(item)]
        try:
            for message in self._receive():
                self._start(message)
        except ResourceNotFoundError:
            pass  # the queue is not there yet
        except AzureError as error:
            LOG.warning("queue %s: %s", self._name, error)

    def close(self) -> None:
        """Waits for what runs; a message whose function fails now comes back by itself."""
        for item in self._running:
            wait([item.future])
            self._over(item)
        self._service.close()

    def _receive(self) -> list[Received]:
        free = self._host.queue_batch_size - len(self._running)
        if free <= 0:
            return []
        return list(
            self._queue.receive_messages(max_messages=free, visibility_timeout=VISIBILITY_S)
        )

    def _start(self, message: Received) -> None:
        body = _decode(str(message.content))
        if self._is_poison_queue and body is None:
            return  # nobody can read it, and there is no queue beyond: it stays
        if body is None or self._died_over(message):
            self._set_aside(message, body)
            return
        value = QueueMessage(
            id=message.id,
            body=body,
            dequeue_count=message.dequeue_count,
            expiration_time=message.expires_on,
            insertion_time=message.inserted_on,
            time_next_visible=message.next_visible_on,
            pop_receipt=message.pop_receipt,
        )
        future = self._pool.submit(invoke, self._function, value)
        self._running.append(Running(message, future, time.monotonic()))

    def _died_over(self, message: Received) -> bool:
        """More deliveries than tries: a host ended without counting."""
        tries = self._host.max_dequeue_count
        return not self._is_poison_queue and (message.dequeue_count or 0) > tries

    def _over(self, item: Running) -> bool:
        """Also when storage refuses: the message then comes back, as at-least-once allows."""
        try:
            return self._finished(item)
        except AzureError as error:
            LOG.warning("queue %s: %s", self._name, error)
            return True

    def _finished(self, item: Running) -> bool:
        if not item.future.done():
            self._renew(item)
            return False
        if item.future.exception() is None:
            self._queue.delete_message(item.message)
        elif self._is_poison_queue:
            pass  # there is no other queue beyond it: the message comes back when it is visible
        elif (item.message.dequeue_count or 0) >= self._host.max_dequeue_count:
            self._set_aside(item.message, _decode(str(item.message.content)))
        else:
            self._queue.update_message(
                item.message, visibility_timeout=self._host.queue_retry_delay_s
            )
        return True

    def _renew(self, item: Running) -> None:
        if time.monotonic() - item.renewed >= RENEW_AFTER_S:
            fresh = self._queue.update_message(item.message, visibility_timeout=VISIBILITY_S)
            item.message.pop_receipt = fresh.pop_receipt
            item.renewed = time.monotonic()

    def _set_aside(self, message: Received, body: bytes | None) -> None:
        poison = self._service.get_queue_client(f"{self._name}-poison")
        put_message(poison, str(message.content).encode() if body is None else body)
        self._queue.delete_message(message)
        LOG.error("%s gave up on message %s", self._function.name, message.id)


def run_queues(triggers: Sequence[QueueTrigger], stop: threading.Event) -> None:
    """Body of the queues' thread."""
    while not stop.wait(POLL_S if triggers else None):
        for trigger in triggers:
            trigger.poll()
    for trigger in triggers:
        trigger.close()


def put_message(queue: QueueClient, body: bytes) -> None:
    """Add a message, base64 as the host expects it; the queue is made when it is missing."""
    with suppress(ResourceExistsError):
        queue.create_queue()
    queue.send_message(base64.b64encode(body).decode("ascii"))


def _decode(content: str) -> bytes | None:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        return None
