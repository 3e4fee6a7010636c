"""Replication as Azure's service statistics tell it; only the secondary endpoint has them.

So they can be asked for when the primary region is gone, and accounts without read access to
their secondary (LRS, ZRS, GRS, GZRS) have none.
"""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient

from shared.azure_storage.patience import RetryBudget
from shared.azure_storage.refusals import storage_errors
from shared.azure_storage.transport import Credential, check_account_url, client_options
from shared.domain.replication import GeoReplication, ReplicationState
from shared.repository.replication_status import ReplicationUnknown

# Of Get Blob Service Stats; an action of the management plane, which no role for blob data holds.
_READ_STATS = "Microsoft.Storage/storageAccounts/blobServices/read"
# Asked every few minutes: what does not answer now is asked again soon.
_PATIENCE = RetryBudget(total_s=20)


def open_replication_status(
    secondary_url: str, credential: Credential, *, ca_file: str | None = None
) -> "AzureReplicationStatus":
    """Raises AccountUrlInvalid; nothing is sent yet."""
    check_account_url(secondary_url, credential)
    options = client_options(secondary_url, ca_file=ca_file, retry=_PATIENCE, threads=1)
    # The client sends this one request to the secondary of what it was given, whose name it would
    # derive anew: it is told that the secondary's is the very same.
    service = BlobServiceClient(
        secondary_url,
        credential,
        secondary_hostname=urlsplit(secondary_url).netloc,
        **options,
    )
    return AzureReplicationStatus(service)


class AzureReplicationStatus:
    """See shared.repository.replication_status.ReplicationStatus for the contract."""

    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service

    def read(self) -> GeoReplication:
        with storage_errors("service statistics", needs=_READ_STATS):
            answer = self._service.get_service_stats()["geo_replication"]
        try:
            state = ReplicationState(answer["status"])
        except ValueError:
            raise ReplicationUnknown(
                f"the secondary says that it is {answer['status']!r}"
            ) from None
        return GeoReplication(state, _in_utc(answer["last_sync_time"]))


def _in_utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC)
