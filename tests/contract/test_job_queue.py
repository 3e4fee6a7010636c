"""What every job queue promises, asked of each of them: the tests' own in memory, and Azurite."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from time import monotonic
from typing import TypeVar
from uuid import uuid4

import pytest
from azure.storage.queue import QueueClient

from local.azurite import EmulatedAccount
from shared.errors import MessageGone, MessageInvalid, QueueNotFound
from shared.jobs.azure_queue import AzureQueue, open_queue
from shared.jobs.messages import MAX_MESSAGE
from shared.jobs.queue import JobQueue, QueueMessage
from tests.harness.memory_queue import MemoryQueue


@pytest.fixture
def azure_queue(azurite_account: EmulatedAccount) -> Iterator[AzureQueue]:
    name = f"jobs-{uuid4().hex[:12]}"
    queue = open_queue(azurite_account.queue_url, name, azurite_account.credential)
    queue.create_if_missing()
    yield queue
    queue.close()


@pytest.fixture(params=["memory", "azurite"])
def queue(request: pytest.FixtureRequest) -> JobQueue:
    if request.param == "memory":
        return MemoryQueue()
    queue: AzureQueue = request.getfixturevalue("azure_queue")
    return queue


def test_an_empty_queue_gives_nothing(queue: JobQueue) -> None:
    assert queue.receive(30) is None
    assert queue.approximate_length() == 0


def test_it_tells_since_when_the_oldest_message_that_nobody_has_is_waiting(
    queue: JobQueue,
) -> None:
    assert queue.waiting_since() is None
    before = datetime.now(UTC)
    queue.send("first")
    Event().wait(1.1)  # the service tells whole seconds
    queue.send("second")
    first = queue.waiting_since()
    assert first is not None
    assert abs(first - before) < timedelta(seconds=1)
    held = received(queue)
    second = queue.waiting_since()
    assert second is not None
    assert second > first
    received(queue)
    assert queue.waiting_since() is None, "somebody has both"
    queue.renew(held, 0)
    assert eventually(queue.waiting_since) == first, "given back, it is as old as before"


@pytest.mark.parametrize("body", ['{"verb":"backup"}', "ä€😀\x00<&>\n", ""])
def test_a_body_arrives_as_it_was_sent(queue: JobQueue, body: str) -> None:
    queue.send(body)
    assert received(queue).body == body


def test_a_received_message_is_hidden_from_others_until_its_time_is_over(queue: JobQueue) -> None:
    queue.send("job")
    first = received(queue, visibility_s=1)
    assert queue.receive(30) is None
    assert queue.approximate_length() == 1
    again = eventually(lambda: queue.receive(30))
    assert (again.id, again.body) == (first.id, "job")
    assert (first.dequeue_count, again.dequeue_count) == (1, 2)


def test_a_deleted_message_does_not_come_back(queue: JobQueue) -> None:
    queue.send("job")
    message = received(queue)
    queue.delete(message)
    queue.delete(message)
    assert queue.approximate_length() == 0


def test_renewing_keeps_a_message_hidden_and_only_its_answer_may_delete(queue: JobQueue) -> None:
    queue.send("job")
    message = received(queue, visibility_s=1)
    renewed = queue.renew(message, 60)
    assert (renewed.id, renewed.body) == (message.id, "job")
    Event().wait(1.2)
    assert queue.receive(30) is None
    with pytest.raises(MessageGone):
        queue.delete(message)
    queue.delete(renewed)


def test_who_was_too_slow_can_neither_renew_nor_delete_what_another_has(queue: JobQueue) -> None:
    queue.send("job")
    slow = received(queue, visibility_s=1)
    quick = eventually(lambda: queue.receive(30))
    with pytest.raises(MessageGone):
        queue.renew(slow, 30)
    with pytest.raises(MessageGone):
        queue.delete(slow)
    queue.delete(quick)
    with pytest.raises(MessageGone):
        queue.renew(slow, 30)


def test_a_renewal_for_no_time_gives_the_message_back_at_once(queue: JobQueue) -> None:
    queue.send("job")
    queue.renew(received(queue), 0)
    assert eventually(lambda: queue.receive(30)).dequeue_count == 2


def test_a_delayed_message_is_not_there_yet(queue: JobQueue) -> None:
    queue.send("later", delay_s=1)
    assert queue.receive(30) is None
    assert eventually(lambda: queue.receive(30)).body == "later"


def test_each_of_several_messages_goes_to_one_receiver(queue: JobQueue) -> None:
    for number in range(5):
        queue.send(str(number))
    assert sorted(received(queue).body for _ in range(5)) == ["0", "1", "2", "3", "4"]
    assert queue.receive(30) is None


def test_a_message_too_long_for_the_service_is_refused_before_it_is_sent(queue: JobQueue) -> None:
    queue.send("ä" * (MAX_MESSAGE // 2))
    with pytest.raises(MessageInvalid, match=str(MAX_MESSAGE)):
        queue.send("ä" * (MAX_MESSAGE // 2) + "x")


def test_bodies_travel_in_base64_as_the_functions_host_expects(
    azurite_account: EmulatedAccount, azure_queue: AzureQueue
) -> None:
    azure_queue.send("job")
    with raw_client(azurite_account, azure_queue) as client:
        assert client.peek_messages()[0].content == b64encode(b"job").decode()


def test_a_foreign_body_that_is_no_base64_is_delivered_as_it_is(
    azurite_account: EmulatedAccount, azure_queue: AzureQueue
) -> None:
    with raw_client(azurite_account, azure_queue) as client:
        client.send_message("{not base64}")
    assert received(azure_queue).body == "{not base64}"


def test_a_queue_that_does_not_exist_is_named(azurite_account: EmulatedAccount) -> None:
    queue = open_queue(azurite_account.queue_url, "nowhere", azurite_account.credential)
    for act in (
        lambda: queue.send("job"),
        lambda: queue.receive(30),
        queue.approximate_length,
        queue.waiting_since,
    ):
        with pytest.raises(QueueNotFound, match="queue nowhere"):
            act()
    queue.close()


def raw_client(account: EmulatedAccount, queue: AzureQueue) -> QueueClient:
    return QueueClient(account.queue_url, queue._client.queue_name, account.credential)


def received(queue: JobQueue, visibility_s: int = 30) -> QueueMessage:
    message = queue.receive(visibility_s)
    assert message is not None
    return message


T = TypeVar("T")


def eventually(look: Callable[[], T | None]) -> T:
    deadline = monotonic() + 10
    while monotonic() < deadline:
        if (found := look()) is not None:
            return found
        Event().wait(0.05)
    pytest.fail("nothing within 10 s")
