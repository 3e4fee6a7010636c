"""Jobs that no worker of the queue `pgkeep-restore` could do, or read."""

import azure.functions as func

from functions.poisoned import take_in_poison
from functions.poisoned_jobs import close_job
from functions.wiring import services
from shared.jobs.messages import POISON, RESTORE_QUEUE

QUEUE = RESTORE_QUEUE + POISON

blueprint = func.Blueprint()


@blueprint.queue_trigger("message", queue_name=QUEUE, connection="PGKEEP_HOST_QUEUES")
def queue_poison_restore(message: func.QueueMessage) -> None:
    take_in_poison(services(), QUEUE, message.get_body(), close_job)
