"""The port to job queues: at least once, in no order, one receiver at a time per message.

A received message is hidden from others for its visibility time; whoever has not deleted or renewed
it by then loses it, and it is delivered again. Adapters raise MessageGone, MessageInvalid,
QueueNotFound, StorageDenied and StorageUnavailable.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.errors import MessageInvalid
from shared.jobs.messages import MAX_MESSAGE


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One delivery. `dequeue_count` is 1 at the first; `receipt` proves that we hold it."""

    id: str
    body: str
    dequeue_count: int
    receipt: str


class JobQueue(Protocol):
    """Six operations; all are safe to call from several threads at once."""

    def send(self, body: str, *, delay_s: int = 0) -> None:
        """Visible after `delay_s`. A retry after a lost reply may send it twice."""
        ...

    def receive(self, visibility_s: int) -> QueueMessage | None:
        """The next visible message, hidden for `visibility_s` (1 s … 7 d); None when there is none.

        A body that the transport cannot decode comes as it is: refusing it is the parser's part.
        """
        ...

    def renew(self, message: QueueMessage, visibility_s: int) -> QueueMessage:
        """Hide it for `visibility_s` from now. The answer replaces `message`: its receipt is new.

        Raises MessageGone when somebody else has received or deleted it.
        """
        ...

    def delete(self, message: QueueMessage) -> None:
        """Idempotent. Raises MessageGone when somebody else has received it since."""
        ...

    def approximate_length(self) -> int:
        """How many messages there are, hidden ones included; may lag behind."""
        ...

    def waiting_since(self) -> datetime | None:
        """When the oldest of the messages at the front was sent, by the queue's own clock.

        Hidden ones do not count: somebody has them. None when no other waits.
        """
        ...


def check_body(body: str) -> None:
    """Raises MessageInvalid: a queue's message has room for 48 KiB of text."""
    size = len(body.encode())
    if size > MAX_MESSAGE:
        raise MessageInvalid(f"message of {size} bytes is longer than {MAX_MESSAGE}")
