"""The function app: registers the blueprints, nothing else. One file per function in functions/."""

import azure.functions as func

from functions import (
    blob_backup_committed,
    blob_incremental_committed,
    http_backups,
    http_drills,
    http_health,
    http_wal,
    queue_job_event,
    queue_wal_event,
    timer_dispatch,
    timer_freshness,
    timer_reconcile,
)

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(timer_dispatch.blueprint)
app.register_functions(timer_freshness.blueprint)
app.register_functions(timer_reconcile.blueprint)
app.register_functions(blob_backup_committed.blueprint)
app.register_functions(blob_incremental_committed.blueprint)
app.register_functions(queue_job_event.blueprint)
app.register_functions(queue_wal_event.blueprint)
app.register_functions(http_backups.blueprint)
app.register_functions(http_drills.blueprint)
app.register_functions(http_wal.blueprint)
app.register_functions(http_health.blueprint)
