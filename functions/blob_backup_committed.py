"""A backup was committed: its document appeared, and with it the backup exists."""

import azure.functions as func

from functions.intake import take_in_backup
from functions.wiring import services
from shared.repository.blob_store import BlobName

blueprint = func.Blueprint()


# The document is the small blob written last: never trigger on data, the host loads blobs whole.
@blueprint.blob_trigger(
    "blob",
    path="full/{cluster}/{label}/backup.json",
    connection="PGKEEP_HOST_REPOSITORY",
    source=func.BlobSource.EVENT_GRID,
)
def blob_backup_committed(blob: func.InputStream) -> None:
    """Only the name is taken from the event; the store is asked for everything else."""
    container, _, path = (blob.name or "").partition("/")
    take_in_backup(services(), BlobName(container, path))
