"""One job of the queue, done by the verb it names. Idempotent by job id."""

from typing import assert_never

from shared.domain.backup import BackupLabel
from shared.domain.cluster import cluster_name
from shared.jobs.messages import BackupJob, DrillJob, VerifyJob
from shared.repository.layout import BackupRef
from worker.commands.backup import BackupRequest, back_up
from worker.commands.drill import DrillRequest, drill
from worker.commands.services import Services
from worker.commands.verify import verify


def perform(services: Services, job: BackupJob | VerifyJob | DrillJob) -> str:
    """Returns what the event calls `result`: a backup's label, or a report's id.

    A verification or drill that finds damage is a job well done: its report says so.
    """
    match job:
        case BackupJob():
            cluster = services.settings.cluster_named(job.cluster)
            return back_up(services, cluster, BackupRequest(job.kind, job.job_id)).label
        case VerifyJob():
            ref = BackupRef(cluster_name(job.cluster), BackupLabel.parse(job.label))
            report_id, digest = str(job.job_id), job.document_digest
            return verify(services, ref, report_id=report_id, expected_digest=digest).id
        case DrillJob():
            cluster = services.settings.cluster_named(job.cluster)
            request = DrillRequest(job.label, str(job.job_id), job.target)
            return drill(services, cluster, request).id
    assert_never(job)
