"""Jobs that no worker of the queue `pgkeep-expire` could do, or read."""

import azure.functions as func

from functions.poisoned import take_in_poison
from functions.poisoned_jobs import close_job
from functions.wiring import services
from shared.jobs.messages import EXPIRE_QUEUE, POISON

QUEUE = EXPIRE_QUEUE + POISON

blueprint = func.Blueprint()


@blueprint.queue_trigger("message", queue_name=QUEUE, connection="PGKEEP_HOST_QUEUES")
def queue_poison_expire(message: func.QueueMessage) -> None:
    take_in_poison(services(), QUEUE, message.get_body(), close_job)
