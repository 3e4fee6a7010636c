"""A restore that was asked for and approved over HTTP, into a registered target."""

from shared.jobs.messages import RestoreJob
from shared.settings import ClusterSettings
from worker.commands.services import Services


def restore_to_target(services: Services, cluster: ClusterSettings, job: RestoreJob) -> str:
    """Returns the label that was restored."""
    raise NotImplementedError
