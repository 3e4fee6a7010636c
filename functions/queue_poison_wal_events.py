"""WAL events that could not be taken in."""

import azure.functions as func

from functions.poisoned import take_in_poison
from functions.queue_wal_event import take_in_wal_event
from functions.wiring import services
from shared.jobs.messages import POISON, WAL_EVENT_QUEUE

QUEUE = WAL_EVENT_QUEUE + POISON

blueprint = func.Blueprint()


@blueprint.queue_trigger("message", queue_name=QUEUE, connection="PGKEEP_HOST_QUEUES")
def queue_poison_wal_events(message: func.QueueMessage) -> None:
    take_in_poison(services(), QUEUE, message.get_body(), take_in_wal_event)
