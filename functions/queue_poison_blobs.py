"""Blob events that could not be taken in; the blob extension names the blob in a message."""

import azure.functions as func
from pydantic import BaseModel, Field, ValidationError

from functions.intake import message_text, take_in_backup
from functions.poisoned import take_in_poison
from functions.wiring import Services, services
from shared.errors import MessageInvalid
from shared.repository.blob_store import BlobName

# The extension's own, in the account of the blob trigger's connection.
QUEUE = "webjobs-blobtrigger-poison"

blueprint = func.Blueprint()


class _PoisonedBlob(BaseModel):
    """What the extension writes beside the function's id, the type of the blob and its ETag."""

    container: str = Field(alias="ContainerName")
    name: str = Field(alias="BlobName")


@blueprint.queue_trigger("message", queue_name=QUEUE, connection="PGKEEP_HOST_REPOSITORY")
def queue_poison_blobs(message: func.QueueMessage) -> None:
    take_in_poison(services(), QUEUE, message.get_body(), take_in_blob)


def take_in_blob(services: Services, body: bytes) -> None:
    """Raises MessageInvalid, and what `take_in_backup` does."""
    try:
        blob = _PoisonedBlob.model_validate_json(message_text(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise MessageInvalid(f"blob event: {first['msg'].lower()}") from None
    take_in_backup(services, BlobName(blob.container, blob.name))
