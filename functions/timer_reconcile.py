"""Each hour: the repository against the catalogue, so that no lost event stays lost."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Final

import azure.functions as func

from functions.guard_watch import watch_guard
from functions.intake import request_verification, take_in_backup, take_in_report
from functions.job_watch import prune
from functions.lapsed_restores import lapse_restores
from functions.looks import look
from functions.outbox import send_requested
from functions.repository_watch import Sighting, watch_repository
from functions.wiring import Services, services
from shared.domain.backup import BackupKind
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.blob_store import BlobInfo
from shared.repository.reports import is_report

# A deep verification reads the whole backup; asking again sooner would only queue it twice.
VERIFIED_WITHIN = timedelta(hours=6)
# The host ends a function after ten minutes. What is not taken in by then is found again next hour.
TAKES_IN_FOR: Final = timedelta(minutes=4)
_GIVES_UP_AFTER: Final = 3  # documents: then it is the storage or the catalogue that is ill

blueprint = func.Blueprint()


@blueprint.timer_trigger("timer", schedule="%PGKEEP_RECONCILE_SCHEDULE%")
def timer_reconcile(timer: func.TimerRequest) -> None:
    found = services()
    with look(found, "reconcile"):
        reconcile(found)


def reconcile(services: Services) -> None:
    """Take in documents without a row, repeat verifications that got lost, and tell what differs.

    One part's trouble does not keep the others from their work; the first is raised at the end.
    """
    sighting = Sighting(services.clock(), services.catalogue.known_blobs())
    failures = []
    for part in _parts(services, sighting):
        try:
            part()
        except PgkeepError as error:
            failures.append(error)
            level, code, fact = logging.ERROR, error.code, error.fact
            log_event("reconcile-incomplete", level=level, code=code, fact=fact)
    if failures:
        raise failures[0]


def _parts(services: Services, sighting: Sighting) -> Iterator[Callable[[], object]]:
    yield partial(_take_in, services, sighting)
    yield partial(_repeat_lost_verifications, services)
    yield partial(send_requested, services)
    if sighting.complete:
        yield partial(watch_repository, services, sighting)
    yield partial(watch_guard, services)
    yield partial(prune, services)
    yield partial(lapse_restores, services)
    yield lambda: services.catalogue.forget_whole_budgets(services.clock())


def _take_in(services: Services, sighting: Sighting) -> None:
    """All is listed, but when time is up only listed. Raises the first of what went wrong."""
    left, failures = 0, list[PgkeepError]()
    for blob in _committed(services):
        if not sighting.saw(blob):
            continue
        if services.clock() - sighting.began > TAKES_IN_FOR:
            left += 1
        elif (error := _refused(services, blob)) is not None:
            failures.append(error)
        if len(failures) == _GIVES_UP_AFTER:
            raise failures[0]
    sighting.complete = True
    if left:
        log_event("reconcile-cut-short", level=logging.WARNING, left=left)
    if failures:
        raise failures[0]


def _refused(services: Services, blob: BlobInfo) -> PgkeepError | None:
    """One that cannot be taken in now comes again next hour, and does not keep back the others."""
    take_in = take_in_report if is_report(blob.name) else take_in_backup
    try:
        take_in(services, blob.name)
    except PgkeepError as error:
        log_event("not-taken-in", level=logging.ERROR, blob=blob.name, code=error.code)
        return error
    return None


def _committed(services: Services) -> Iterator[BlobInfo]:
    """Backups before the reports about them."""
    for kind in BackupKind:
        for blob in services.store.list(kind.value):
            if layout.is_backup_document(blob.name):
                yield blob
    for blob in services.store.list(layout.EVIDENCE):
        if is_report(blob.name):
            yield blob


def _repeat_lost_verifications(services: Services) -> None:
    quiet_since = services.clock() - VERIFIED_WITHIN
    for backup in services.catalogue.never_verified(committed_before=quiet_since):
        job_id = request_verification(services, backup.ref, backup.digest)
        if services.catalogue.send_again(job_id, quiet_since=quiet_since):
            log_event("verification-repeated", level=logging.WARNING, label=backup.ref.label)
