"""An incremental backup was committed: a trigger watches one container, hence this second one."""

import azure.functions as func

from functions.intake import take_in_backup
from functions.wiring import services
from shared.repository.blob_store import BlobName

blueprint = func.Blueprint()


@blueprint.blob_trigger(
    "blob",
    path="incremental/{cluster}/{label}/backup.json",
    connection="PGKEEP_HOST_REPOSITORY",
    source=func.BlobSource.EVENT_GRID,
)
def blob_incremental_committed(blob: func.InputStream) -> None:
    """As blob_backup_committed: only the name is taken from the event."""
    container, _, path = (blob.name or "").partition("/")
    take_in_backup(services(), BlobName(container, path))
