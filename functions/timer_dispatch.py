"""Each minute: which backups are due? Each due tick becomes one job, however many of us run."""

import logging
from collections.abc import Iterator

import azure.functions as func

from functions.outbox import send_requested
from functions.silent_jobs import is_silent
from functions.wiring import Services, services
from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.job import JobVerb
from shared.domain.schedule import BackupSchedule, DueBackup, due
from shared.event_log import log_event
from shared.jobs.messages import BackupJob
from shared.settings import Settings

blueprint = func.Blueprint()


# No monitor: missed ticks are found in the catalogue, not in the host's status blob.
@blueprint.timer_trigger("timer", schedule="%PGKEEP_DISPATCH_SCHEDULE%", use_monitor=False)
def timer_dispatch(timer: func.TimerRequest) -> None:
    dispatch(services())


def dispatch(services: Services) -> None:
    """Serve each due tick once, then send what was requested, now or before a crash."""
    served = services.catalogue.served_ticks()
    ticks = due(schedules(services.settings), served, services.clock())
    fulls = {tick.cluster for tick in ticks if tick.kind is BackupKind.FULL}
    for tick in ticks:
        if tick.kind is BackupKind.INCREMENTAL and tick.cluster in fulls:
            _pass_over(services, tick)
        else:
            _serve(services, tick)
    send_requested(services)


def schedules(settings: Settings) -> Iterator[BackupSchedule]:
    for cluster in settings.cluster:
        name, wanted = cluster_name(cluster.name), cluster.schedule
        if wanted.full:
            yield BackupSchedule(name, BackupKind.FULL, wanted.full)
        if wanted.incremental:
            yield BackupSchedule(name, BackupKind.INCREMENTAL, wanted.incremental)


def _pass_over(services: Services, tick: DueBackup) -> None:
    """The full backup that is due as well holds everything that the incremental one would."""
    if services.catalogue.skip_tick(tick, services.clock()):
        log_event("incremental-passed-over", cluster=tick.cluster, due=tick.due)


def _serve(services: Services, tick: DueBackup) -> None:
    now = services.clock()
    if _is_being_backed_up(services, tick):
        if services.catalogue.skip_tick(tick, now):
            level = logging.WARNING
            log_event("backup-skipped", level=level, cluster=tick.cluster, due=tick.due)
    elif services.catalogue.request_for_tick(tick, _job(tick), now):
        log_event("backup-due", cluster=tick.cluster, due=tick.due, late=tick.late)


def _is_being_backed_up(services: Services, tick: DueBackup) -> bool:
    """A worker that fell silent does not hold up the next backup."""
    return any(
        job.verb is JobVerb.BACKUP
        and job.cluster == tick.cluster
        and not is_silent(job, services.clock())
        for job in services.catalogue.running_jobs()
    )


def _job(tick: DueBackup) -> BackupJob:
    return BackupJob(
        job_id=tick.job_id, cluster=tick.cluster, kind=tick.kind, due=tick.due, late=tick.late
    )
