"""Leases on Azure blobs: the service's own blob lease, and in the blob who holds it.

The lease excludes others and expires by itself; the JSON below it carries the fencing token, which
only the holder of the lease can raise. Time comes from storage's clock (the Date header), so that
hosts with wrong clocks agree on who has held it since when.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

from azure.core.exceptions import ResourceExistsError
from azure.core.pipeline import PipelineResponse
from azure.storage.blob import BlobClient, BlobLeaseClient, BlobServiceClient

from shared.azure_storage.patience import RetryBudget
from shared.azure_storage.refusals import storage_errors
from shared.azure_storage.transport import Credential, check_account_url, client_options
from shared.errors import BlobNotFound, InvalidInput, LeaseHeld, LeaseLost
from shared.jobs.lease import Lease, LeaseRecord, held_by

# https://learn.microsoft.com/rest/api/storageservices/lease-blob
_TTL_LIMITS_S = (15, 60)
# The lease action is part of the blob's write right.
_WRITE = "blobs/write"
_READ = "blobs/read"
# A renewal that takes longer than a third of the lease is worth less than the next one.
RENEWAL_BUDGET = RetryBudget(total_s=8, first_pause_s=0.25, longest_pause_s=2)


class LeaseTtlInvalid(InvalidInput):
    """A duration that Azure does not lease for."""

    code = "lease-ttl-invalid"
    hint = "A lease lasts 15 to 60 seconds and is renewed."


def open_blob_leases(
    account_url: str,
    container: str,
    credential: Credential,
    *,
    ca_file: str | None = None,
    retry: RetryBudget = RENEWAL_BUDGET,
) -> "BlobLeases":
    """`account_url` as in https://name.blob.core.windows.net; nothing is sent yet."""
    check_account_url(account_url, credential)
    options = client_options(account_url, ca_file=ca_file, retry=retry, threads=2)
    return BlobLeases(BlobServiceClient(account_url, credential, **options), container)


class BlobLeases:
    """See shared.jobs.lease.LeaseStore for the contract. The container must not be immutable."""

    def __init__(self, service: BlobServiceClient, container: str) -> None:
        self._service = service
        self._container = container

    def close(self) -> None:
        self._service.close()

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        shortest, longest = _TTL_LIMITS_S
        if not shortest <= ttl_s <= longest:
            raise LeaseTtlInvalid(f"a lease of {ttl_s} s is not within {shortest} to {longest}")
        lease_id = str(uuid4())
        try:
            acquired_at = self._take(name, lease_id, ttl_s)
        except LeaseHeld:
            raise held_by(name, self.current(name)) from None
        with ExitStack() as undo:
            undo.callback(self._give_back, name, lease_id)
            token = self._last_token(name) + 1
            record = LeaseRecord(token=token, holder=holder, acquired_at=acquired_at)
            self._write(name, lease_id, record)
            undo.pop_all()
        return Lease(name, token, holder, acquired_at, ttl_s, lease_id)

    def renew(self, lease: Lease) -> None:
        try:
            with storage_errors(lease.name, needs=_WRITE):
                self._lease_client(lease.name, lease.handle).renew()
        except BlobNotFound as error:
            raise LeaseLost(f"lease {lease.name}: its blob was deleted") from error

    def release(self, lease: Lease) -> None:
        self._give_back(lease.name, lease.handle)

    def current(self, name: str) -> LeaseRecord | None:
        try:
            with storage_errors(name, needs=_READ):
                state = self._blob(name).get_blob_properties().lease.state
            return LeaseRecord.parse(name, self._read(name)) if state == "leased" else None
        except BlobNotFound:
            return None

    def _take(self, name: str, lease_id: str, ttl_s: int) -> datetime:
        """When, by storage's clock. A repetition with the same id is granted again."""
        told: list[datetime] = []
        client = self._lease_client(name, lease_id)
        with storage_errors(name, needs=_WRITE):
            self._create_if_missing(name)
            client.acquire(ttl_s, raw_response_hook=_note_date(told))
        return told[-1]

    def _give_back(self, name: str, lease_id: str) -> None:
        with suppress(LeaseLost, BlobNotFound), storage_errors(name, needs=_WRITE):
            self._lease_client(name, lease_id).release()

    def _last_token(self, name: str) -> int:
        previous = LeaseRecord.parse(name, self._read(name))
        return previous.token if previous else 0

    def _create_if_missing(self, name: str) -> None:
        blob = self._blob(name)
        if not blob.exists():
            with suppress(ResourceExistsError):
                blob.upload_blob(b"", overwrite=False)

    def _read(self, name: str) -> bytes:
        with storage_errors(name, needs=_READ):
            return self._blob(name).download_blob().readall()

    def _write(self, name: str, lease_id: str, record: LeaseRecord) -> None:
        with storage_errors(name, needs=_WRITE):
            data = record.model_dump_json().encode()
            lease = self._lease_client(name, lease_id)
            self._blob(name).upload_blob(data, overwrite=True, lease=lease)

    def _blob(self, name: str) -> BlobClient:
        return self._service.get_blob_client(self._container, name)

    def _lease_client(self, name: str, lease_id: str) -> BlobLeaseClient:
        return BlobLeaseClient(self._blob(name), lease_id)


def _note_date(told: list[datetime]) -> Callable[[PipelineResponse[Any, Any]], None]:
    def note(response: PipelineResponse[Any, Any]) -> None:
        told.append(parsedate_to_datetime(response.http_response.headers["Date"]))

    return note
