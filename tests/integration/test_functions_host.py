"""The host over real Azurite: blob events and queues, with the app's misbehaviour and restarts."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobServiceClient, ContainerClient
from azure.storage.queue import QueueClient, QueueServiceClient

from local.azurite import EmulatedAccount
from local.functions_host.app_settings import AppSettings, open_blobs, open_queues
from local.functions_host.host import running_host
from local.functions_host.queue_messages import put_message

pytestmark = pytest.mark.integration

APP = """
import json, os
from pathlib import Path
import azure.functions as func

HERE = Path(__file__).parent
app = func.FunctionApp()

def note(line: str) -> None:
    with (HERE / "notes").open("a") as notes:
        notes.write(line + "\\n")

@app.blob_trigger("blob", path="full/{cluster}/{label}/backup.json", connection="STORAGE",
                  source=func.BlobSource.EVENT_GRID)
def committed(blob: func.InputStream) -> None:
    body = blob.read().decode()
    note(f"blob {blob.name.partition('/')[2]} {blob.length} {body}")
    if body == "bad":
        raise ValueError("no backup document")

@app.queue_trigger("message", queue_name="%EVENTS%", connection="STORAGE")
def heard(message: func.QueueMessage) -> None:
    body = message.get_body().decode()
    note(f"message {body} {message.dequeue_count}")
    if body == "bad" or (body == "shy" and message.dequeue_count < 2):
        raise ValueError("no job event")
"""
DEADLINE_S = 30


class Stage:
    """An app folder, its storage, and what its functions noted."""

    def __init__(self, folder: Path, settings: AppSettings) -> None:
        self.folder, self.settings = folder, settings
        self.blobs: BlobServiceClient = open_blobs("STORAGE", settings)
        self.queues: QueueServiceClient = open_queues("STORAGE", settings)
        self.container: ContainerClient = self.blobs.create_container("full")
        self.queue: QueueClient = self.queues.create_queue("events")

    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    @contextmanager
    def hosted(self) -> Iterator[None]:
        with running_host(self.folder, self.settings, self.folder / "state"):
            yield

    def poison(self, name: str) -> list[str]:
        with self.queues.get_queue_client(name) as queue:
            return [str(message.content) for message in queue.peek_messages(32)]


@pytest.fixture
def stage(tmp_path: Path, fresh_azurite_account: EmulatedAccount) -> Iterator[Stage]:
    settings = {
        "EVENTS": "events",
        "STORAGE__blobServiceUri": fresh_azurite_account.blob_url,
        "STORAGE__queueServiceUri": fresh_azurite_account.queue_url,
        "STORAGE__accountKey": fresh_azurite_account.key,
    }
    (tmp_path / "function_app.py").write_text(APP)
    (tmp_path / "host.json").write_text(
        json.dumps({"version": "2.0", "extensions": {"queues": {"maxDequeueCount": 3}}})
    )
    made = Stage(tmp_path, settings)
    yield made
    made.blobs.close()
    made.queues.close()


def until(condition: Callable[[], bool], seconds: float = DEADLINE_S) -> bool:
    """Wait for the condition; False when the time is over."""
    pause = threading.Event()
    for _ in range(int(seconds * 10)):
        if condition():
            return True
        pause.wait(0.1)
    return condition()


def test_a_committed_blob_is_delivered_and_one_of_another_path_is_not(stage: Stage) -> None:
    with stage.hosted():
        stage.container.upload_blob("main/b1/base.pgdata.0000", b"volume")
        stage.container.upload_blob("main/b1/c/backup.json", b"too deep")
        stage.container.upload_blob("main/b1/backup.json", b"good")
        assert until(lambda: stage.notes() != [])
        assert not until(lambda: len(stage.notes()) > 1, seconds=2)
    assert stage.notes() == ["blob main/b1/backup.json 4 good"]


def test_staged_blocks_are_no_event_until_they_are_committed(stage: Stage) -> None:
    blob = stage.container.get_blob_client("main/b1/backup.json")
    with stage.hosted():
        blob.stage_block("0001", b"late")
        assert not until(lambda: stage.notes() != [], seconds=2)
        blob.commit_block_list([BlobBlock("0001")])
        assert until(lambda: stage.notes() == ["blob main/b1/backup.json 4 late"])


def test_an_event_from_before_the_start_is_delivered_and_a_restart_repeats_none(
    stage: Stage,
) -> None:
    stage.container.upload_blob("main/b1/backup.json", b"one")
    with stage.hosted():
        assert until(lambda: len(stage.notes()) == 1)
    stage.container.upload_blob("main/b2/backup.json", b"two")
    with stage.hosted():
        assert until(lambda: len(stage.notes()) > 1)
        assert not until(lambda: len(stage.notes()) > 2, seconds=2)
    assert stage.notes() == ["blob main/b1/backup.json 3 one", "blob main/b2/backup.json 3 two"]


def test_an_event_whose_receipt_was_lost_comes_again(stage: Stage) -> None:
    stage.container.upload_blob("main/b1/backup.json", b"one")
    with stage.hosted():
        assert until(lambda: len(stage.notes()) == 1)
    (stage.folder / "state" / "receipts.sqlite").unlink()
    with stage.hosted():
        assert until(lambda: len(stage.notes()) == 2)
    assert len(set(stage.notes())) == 1


def test_a_blob_that_fails_five_times_goes_to_the_poison_queue(stage: Stage) -> None:
    blob = stage.container.upload_blob("main/b1/backup.json", b"bad")
    etag = blob.get_blob_properties().etag
    with stage.hosted():
        assert until(lambda: poison_of_blobs(stage) != [])
        assert not until(lambda: len(stage.notes()) > 5, seconds=2)
    assert stage.notes() == ["blob main/b1/backup.json 3 bad"] * 5
    (letter,) = map(json.loads, poison_of_blobs(stage))
    assert letter == {
        "Type": "BlobTrigger",
        "FunctionId": "committed",
        "BlobType": "BlockBlob",
        "ContainerName": "full",
        "BlobName": "main/b1/backup.json",
        "ETag": etag,
    }


def test_what_fails_in_a_poison_queue_stays_there(stage: Stage) -> None:
    """As with Azure's host, which makes no poison queue for one: the message comes back later."""
    (stage.folder / "function_app.py").write_text(APP.replace("%EVENTS%", "events-poison"))
    (stage.folder / "host.json").write_text(
        json.dumps({"version": "2.0", "extensions": {"queues": {"maxDequeueCount": 1}}})
    )
    with stage.queues.create_queue("events-poison") as queue, stage.hosted():
        queue.send_message("YmFk")
        queue.send_message("not base64!")
        assert until(lambda: stage.notes() == ["message bad 1"])
    with stage.queues.get_queue_client("events-poison") as queue:
        assert queue.get_queue_properties().approximate_message_count == 2
    names = {queue.name for queue in stage.queues.list_queues()}
    assert "events-poison-poison" not in names


def poison_of_blobs(stage: Stage) -> list[str]:
    try:
        texts = stage.poison("webjobs-blobtrigger-poison")
    except ResourceNotFoundError:
        return []
    return [base64.b64decode(text).decode() for text in texts]


def test_a_message_is_decoded_and_deleted_after_its_function(stage: Stage) -> None:
    put_message(stage.queue, b"good")
    with stage.hosted():
        assert until(lambda: stage.notes() == ["message good 1"])
        assert until(lambda: stage.queue.get_queue_properties().approximate_message_count == 0)


def test_a_message_that_fails_once_is_tried_again(stage: Stage) -> None:
    put_message(stage.queue, b"shy")
    with stage.hosted():
        assert until(lambda: stage.notes() == ["message shy 1", "message shy 2"])


def test_a_message_that_keeps_failing_is_set_aside_unchanged(stage: Stage) -> None:
    put_message(stage.queue, b"bad")
    with stage.hosted():
        assert until(lambda: stage.queue.get_queue_properties().approximate_message_count == 0)
        assert until(lambda: len(stage.notes()) == 3)
    assert stage.notes() == ["message bad 1", "message bad 2", "message bad 3"]
    assert stage.poison("events-poison") == ["YmFk"]


def test_a_message_that_is_not_base64_is_set_aside_without_a_call(stage: Stage) -> None:
    stage.queue.send_message("{not base64}")
    with stage.hosted():
        assert until(lambda: stage.queue.get_queue_properties().approximate_message_count == 0)
    assert stage.notes() == []
    assert len(stage.poison("events-poison")) == 1
