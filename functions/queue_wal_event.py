"""A WAL writer reports: how far it is, a gap that it had to leave, or somebody else's WAL."""

import azure.functions as func

from functions.intake import message_text, set_aside
from functions.wal_watch import open_troubles
from functions.wiring import Services, services
from shared.domain.cluster import cluster_name
from shared.errors import ClusterUnknown
from shared.event_log import log_event
from shared.jobs.messages import WAL_EVENT_QUEUE
from shared.jobs.wal_events import WalProgress, parse_wal_event

blueprint = func.Blueprint()


@blueprint.queue_trigger("message", queue_name=WAL_EVENT_QUEUE, connection="PGKEEP_HOST_QUEUES")
def queue_wal_event(message: func.QueueMessage) -> None:
    take_in_wal_event(services(), message.get_body())


def take_in_wal_event(services: Services, body: bytes) -> None:
    """Record it; what is wrong becomes a finding now, and not at the next look at the archive.

    Raises MessageInvalid for what is no event: after five tries the host sets it aside.
    """
    event = parse_wal_event(message_text(body))
    if event.cluster not in {cluster.name for cluster in services.settings.cluster}:
        error = ClusterUnknown(f"wal event of cluster {event.cluster}, which no settings name")
        set_aside(services, f"{WAL_EVENT_QUEUE}/{event.cluster}/{event.writer}", error)
        return
    new = services.catalogue.record_wal_event(event, services.clock())
    log_event("wal-event", cluster=event.cluster, kind=event.kind, writer=event.writer, new=new)
    if not isinstance(event, WalProgress):
        open_troubles(services, cluster_name(event.cluster))
