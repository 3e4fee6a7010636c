"""The function app: registers the blueprints, nothing else. One file per function in functions/."""

import azure.functions as func

from functions import (
    blob_backup_committed,
    blob_incremental_committed,
    http_backups,
    http_clusters,
    http_drills,
    http_findings,
    http_health,
    http_jobs,
    http_openapi,
    http_plans,
    http_restore_decision,
    http_restores,
    http_wal,
    queue_job_event,
    queue_poison_backup,
    queue_poison_blobs,
    queue_poison_events,
    queue_poison_expire,
    queue_poison_maintenance,
    queue_poison_restore,
    queue_poison_wal_events,
    queue_wal_event,
    timer_dispatch,
    timer_freshness,
    timer_reconcile,
)

# Function keys are no authentication: each operation asks for a role (functions/operations.py).
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
app.register_functions(timer_dispatch.blueprint)
app.register_functions(timer_freshness.blueprint)
app.register_functions(timer_reconcile.blueprint)
app.register_functions(blob_backup_committed.blueprint)
app.register_functions(blob_incremental_committed.blueprint)
app.register_functions(queue_job_event.blueprint)
app.register_functions(queue_wal_event.blueprint)
app.register_functions(queue_poison_backup.blueprint)
app.register_functions(queue_poison_blobs.blueprint)
app.register_functions(queue_poison_events.blueprint)
app.register_functions(queue_poison_expire.blueprint)
app.register_functions(queue_poison_maintenance.blueprint)
app.register_functions(queue_poison_restore.blueprint)
app.register_functions(queue_poison_wal_events.blueprint)
app.register_functions(http_backups.blueprint)
app.register_functions(http_drills.blueprint)
app.register_functions(http_wal.blueprint)
app.register_functions(http_clusters.blueprint)
app.register_functions(http_findings.blueprint)
app.register_functions(http_jobs.blueprint)
app.register_functions(http_openapi.blueprint)
app.register_functions(http_plans.blueprint)
app.register_functions(http_restore_decision.blueprint)
app.register_functions(http_restores.blueprint)
app.register_functions(http_health.blueprint)
