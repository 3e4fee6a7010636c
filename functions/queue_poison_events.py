"""Job events that could not be taken in: mostly the catalogue was away, and now it is not."""

import azure.functions as func

from functions.poisoned import take_in_poison
from functions.queue_job_event import take_in_event
from functions.wiring import services
from shared.jobs.messages import EVENT_QUEUE, POISON

QUEUE = EVENT_QUEUE + POISON

blueprint = func.Blueprint()


@blueprint.queue_trigger("message", queue_name=QUEUE, connection="PGKEEP_HOST_QUEUES")
def queue_poison_events(message: func.QueueMessage) -> None:
    take_in_poison(services(), QUEUE, message.get_body(), take_in_event)
