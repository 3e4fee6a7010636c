"""A restore that was asked for and approved over HTTP, into a new directory of a registered target.

    <target's directory>/<cluster>-<job id>/data, tablespaces/<oid>, and last of all restored.json

A message names targets, never paths. Without `restored.json` the directory is an attempt that died:
whoever does the job next removes it and begins anew.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Final

from shared.domain.cluster import cluster_name
from shared.domain.recovery_target import RecoveryTarget, ToImmediate, ToLatest, ToTime, parse_time
from shared.errors import Corrupt, Denied, NotFound, Refused
from shared.event_log import log_event
from shared.jobs.lease import hold
from shared.jobs.messages import RestoreJob
from shared.repository import layout
from shared.settings import ClusterSettings, RestoreTarget, Settings
from worker.commands.recover import RecoveryOutcome, recover
from worker.commands.recovery import RecoveryRequest
from worker.commands.restore import RestoreRequest
from worker.commands.services import Services
from worker.pipeline.file_writer import disk_errors

RECEIPT: Final = "restored.json"


class RestoreTargetUnknown(NotFound):
    """A target that this host's settings do not name."""

    code = "restore-target-unknown"
    hint = "Register it under [[target]] in the settings of function app and restore host alike."


class RestoreTargetForbidden(Denied):
    """A target that takes no backups of this cluster."""

    code = "restore-target-forbidden"
    hint = "Add the cluster to the target's `clusters`, or choose another target."


class RestoreTargetMissing(Refused):
    """The directory of a registered target is not there."""

    code = "restore-target-missing"
    hint = "Make the directory, or mount it; pgkeep makes only what lies below."


def restore_to_target(services: Services, cluster: ClusterSettings, job: RestoreJob) -> str:
    """Returns the label that was restored. Idempotent by job id; two at once exclude one another.

    Raises what the classes above say, LeaseHeld, and what a recovery raises.
    """
    place = _place(services.settings, cluster, job)
    name = layout.lock(cluster_name(cluster.name), f"restore-{job.job_id}").path
    ttl = services.settings.worker.lease_seconds
    with hold(services.leases, name, services.host, ttl_s=ttl) as renewal:
        known = _receipt(place)
        if known is not None:
            return known
        _begin_anew(place)
        outcome = recover(services, _request(services, cluster, job, place))
        renewal.check()
        _leave_receipt(place, job, outcome)
    return outcome.restored.label


def registered_target(settings: Settings, name: str, cluster: str) -> RestoreTarget:
    """Raises RestoreTargetUnknown, RestoreTargetForbidden."""
    for target in settings.target:
        if target.name == name:
            if target.clusters and cluster not in target.clusters:
                raise RestoreTargetForbidden(f"target {name} takes no backups of {cluster}")
            return target
    raise RestoreTargetUnknown(f"no restore target is called {name}")


def _place(settings: Settings, cluster: ClusterSettings, job: RestoreJob) -> Path:
    directory = registered_target(settings, job.target, cluster.name).directory
    if not directory.is_dir():
        raise RestoreTargetMissing(f"{directory}, the directory of target {job.target}, is missing")
    return directory / f"{cluster.name}-{job.job_id}"


def _begin_anew(place: Path) -> None:
    with disk_errors(bytes(place)):
        if place.exists():
            log_event("restore-attempt-removed", directory=str(place))
            shutil.rmtree(place)
        place.mkdir(mode=0o711)  # PostgreSQL's account goes through it


def _request(
    services: Services, cluster: ClusterSettings, job: RestoreJob, place: Path
) -> RestoreRequest:
    target = registered_target(services.settings, job.target, cluster.name)
    return RestoreRequest(
        cluster=cluster_name(cluster.name),
        label=job.label,
        target=place / "data",
        tablespaces_below=place / "tablespaces",
        owner=target.owner or services.settings.drill.run_as,
        recovery=RecoveryRequest(_goal(job.to)),
    )


def _goal(text: str) -> RecoveryTarget:
    match text:
        case "latest":
            return ToLatest()
        case "immediate":
            return ToImmediate()
        case _:
            return ToTime(parse_time(text))


def _receipt(place: Path) -> str | None:
    """The label that was restored here; None as long as it is not all there. Raises Corrupt."""
    try:
        label = json.loads((place / RECEIPT).read_text("utf-8"))["label"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{place / RECEIPT} cannot be read: {error}") from None
    return str(label)


def _leave_receipt(place: Path, job: RestoreJob, outcome: RecoveryOutcome) -> None:
    """Written aside and renamed: it is whole, or it is not there."""
    receipt = {
        "job_id": str(job.job_id),
        "cluster": job.cluster,
        "label": outcome.restored.label,
        "to": job.to,
        "reached": str(outcome.reached),
        "timeline": outcome.timeline,
        "requested_by": job.requested_by,
        "approved_by": job.approved_by,
    }
    with disk_errors(bytes(place)):
        draft = place / f"{RECEIPT}.tmp"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(receipt, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place / RECEIPT)
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
