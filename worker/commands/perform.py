"""One job of the queue, done by the verb it names. Idempotent by job id."""

from typing import assert_never

from shared.domain.backup import BackupLabel
from shared.domain.cluster import cluster_name
from shared.jobs.messages import (
    AnyJob,
    AuditJob,
    BackupJob,
    DrillJob,
    ExpireJob,
    MaintenanceJob,
    RestoreJob,
    VerifyJob,
)
from shared.repository.layout import BackupRef
from worker.commands.audit import AuditRequest, audit
from worker.commands.backup import BackupRequest, back_up
from worker.commands.drill import DrillRequest, drill
from worker.commands.expire import ExpireRequest, expire
from worker.commands.maintenance import MaintenanceRequest, maintain
from worker.commands.restore_to_target import restore_to_target
from worker.commands.services import Services
from worker.commands.verify import verify


def perform(services: Services, job: AnyJob) -> str | None:  # noqa: PLR0911 - a line per verb
    """Returns what the event calls `result`: a backup's label, a report's id, or nothing.

    A verification or drill that finds damage is a job well done: its report says so.
    """
    if isinstance(job, VerifyJob):  # also of a cluster that the settings have forgotten
        return _verify(services, job)
    cluster = services.settings.cluster_named(job.cluster)
    match job:
        case BackupJob():
            return back_up(services, cluster, BackupRequest(job.kind, job.job_id)).label
        case DrillJob():
            return drill(services, cluster, _drill_request(job)).id
        case RestoreJob():
            return restore_to_target(services, cluster, job)
        case ExpireJob():
            return expire(services, cluster, ExpireRequest(job.job_id)).id
        case MaintenanceJob():
            maintain(services, cluster, MaintenanceRequest(until=job.until))
            return None
        case AuditJob():
            request = AuditRequest(job.since, job.until, job.job_id)
            return audit(services, cluster, request).id
        case _:
            assert_never(job)


def _drill_request(job: DrillJob) -> DrillRequest:
    return DrillRequest(
        label=job.label,
        drill_id=str(job.job_id),
        target=job.target,
        level=job.level,
        from_secondary=job.from_secondary,
    )


def _verify(services: Services, job: VerifyJob) -> str:
    ref = BackupRef(cluster_name(job.cluster), BackupLabel.parse(job.label))
    return verify(
        services,
        ref,
        whole_chain=job.whole_chain,
        report_id=str(job.job_id),
        expected_digest=job.document_digest,
    ).id
