"""Job queues on Azure Queue Storage.

Bodies travel in base64: the Functions host decodes it by default (host.json,
extensions.queues.messageEncoding), and XML would not carry every character.
"""

import binascii
from base64 import b64decode
from datetime import datetime

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from shared.azure_storage.patience import RetryBudget
from shared.azure_storage.refusals import storage_errors
from shared.azure_storage.transport import Credential, check_account_url, client_options
from shared.jobs.queue import QueueMessage, check_body

# Data actions below Microsoft.Storage/storageAccounts/queueServices/, as roles name them.
_SEND = "queues/messages/add/action"
_PROCESS = "queues/messages/process/action"
_PEEK = "queues/messages/read"
_READ = "queues/read"
_CREATE = "queues/write"

# Seven days, the service's default: an older job was overtaken by the schedule long ago.
_TIME_TO_LIVE_S = 7 * 24 * 3600
# As many as one request shows: the order of a queue is only roughly that of sending.
_PEEKED = 32


def open_queue(
    account_url: str,
    name: str,
    credential: Credential,
    *,
    ca_file: str | None = None,
    retry: RetryBudget | None = None,
) -> "AzureQueue":
    """`account_url` as in https://name.queue.core.windows.net; nothing is sent yet."""
    check_account_url(account_url, credential)
    options = client_options(account_url, ca_file=ca_file, retry=retry or RetryBudget(), threads=4)
    client = QueueClient(
        account_url, name, credential, message_encode_policy=TextBase64EncodePolicy(), **options
    )
    return AzureQueue(client)


class AzureQueue:
    """See shared.jobs.queue.JobQueue for the contract."""

    def __init__(self, client: QueueClient) -> None:
        self._client = client
        self._what = f"queue {client.queue_name}"

    def close(self) -> None:
        self._client.close()

    def create_if_missing(self) -> None:
        with storage_errors(self._what, needs=_CREATE):
            try:
                self._client.create_queue()
            except ResourceExistsError:
                return

    def send(self, body: str, *, delay_s: int = 0) -> None:
        check_body(body)
        with storage_errors(self._what, needs=_SEND):
            self._client.send_message(
                body, visibility_timeout=delay_s, time_to_live=_TIME_TO_LIVE_S
            )

    def receive(self, visibility_s: int) -> QueueMessage | None:
        with storage_errors(self._what, needs=_PROCESS):
            message = self._client.receive_message(visibility_timeout=visibility_s)
        if message is None:
            return None
        body = _decoded(str(message.content or ""))
        return QueueMessage(
            str(message.id), body, message.dequeue_count or 1, str(message.pop_receipt)
        )

    def renew(self, message: QueueMessage, visibility_s: int) -> QueueMessage:
        with storage_errors(f"{self._what}: {message.id}", needs=_PROCESS):
            renewed = self._client.update_message(
                message.id, message.receipt, visibility_timeout=visibility_s
            )
        return QueueMessage(
            message.id, message.body, message.dequeue_count, str(renewed.pop_receipt)
        )

    def delete(self, message: QueueMessage) -> None:
        with storage_errors(f"{self._what}: {message.id}", needs=_PROCESS):
            try:
                self._client.delete_message(message.id, message.receipt)
            except ResourceNotFoundError:
                return

    def approximate_length(self) -> int:
        with storage_errors(self._what, needs=_READ):
            return self._client.get_queue_properties().approximate_message_count or 0

    def waiting_since(self) -> datetime | None:
        with storage_errors(self._what, needs=_PEEK):
            front = self._client.peek_messages(max_messages=_PEEKED)
        sent = (message.inserted_on for message in front)
        return min((at for at in sent if at is not None), default=None)


def _decoded(text: str) -> str:
    """Foreign bodies that are no base64 of UTF-8 pass as they are; see JobQueue.receive."""
    try:
        return b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return text
