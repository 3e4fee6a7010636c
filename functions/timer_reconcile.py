"""Each hour: the repository against the catalogue, so that no lost event stays lost."""

import logging
from collections.abc import Iterator
from datetime import timedelta

import azure.functions as func

from functions.intake import request_verification, take_in_backup, take_in_report
from functions.outbox import send_requested
from functions.silent_jobs import declare_lost, is_silent
from functions.wiring import Services, services
from shared.domain.backup import BackupKind
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.reports import is_report

# A deep verification reads the whole backup; asking again sooner would only queue it twice.
VERIFIED_WITHIN = timedelta(hours=6)

blueprint = func.Blueprint()


@blueprint.timer_trigger("timer", schedule="%PGKEEP_RECONCILE_SCHEDULE%")
def timer_reconcile(timer: func.TimerRequest) -> None:
    reconcile(services())


def reconcile(services: Services) -> None:
    """Take in documents without a row, give up silent jobs, repeat verifications that got lost."""
    known = services.catalogue.known_blobs()
    for name in _documents(services):
        if name not in known:
            take_in_backup(services, name)
    for name in _reports(services):
        if name not in known:
            take_in_report(services, name)
    _declare_silent_jobs_lost(services)
    _repeat_lost_verifications(services)
    send_requested(services)


def _documents(services: Services) -> Iterator[BlobName]:
    for kind in BackupKind:
        for blob in services.store.list(kind.value):
            if layout.is_backup_document(blob.name):
                yield blob.name


def _reports(services: Services) -> Iterator[BlobName]:
    for blob in services.store.list(layout.EVIDENCE):
        if is_report(blob.name):
            yield blob.name


def _declare_silent_jobs_lost(services: Services) -> None:
    for job in services.catalogue.running_jobs():
        if is_silent(job, services.clock()):
            declare_lost(services, job)
            log_event("job-lost", level=logging.ERROR, job_id=job.job_id, cluster=job.cluster)


def _repeat_lost_verifications(services: Services) -> None:
    quiet_since = services.clock() - VERIFIED_WITHIN
    for backup in services.catalogue.never_verified(committed_before=quiet_since):
        job_id = request_verification(services, backup.ref, backup.digest)
        if services.catalogue.send_again(job_id, quiet_since=quiet_since):
            log_event("verification-repeated", level=logging.WARNING, label=backup.ref.label)
