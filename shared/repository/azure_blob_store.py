"""The repository on Azure Blob Storage: block blobs, create-only, several containers per account.

Every write carries `If-None-Match: *` and a checksum that storage verifies before it accepts the
bytes. A reply that got lost makes the repetition meet its own work: then what is there is read
back and compared, so that each operation is idempotent.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError
from azure.core.pipeline import PipelineResponse
from azure.storage.blob import (
    BlobBlock,
    BlobClient,
    BlobProperties,
    BlobServiceClient,
    ContentSettings,
)

from shared.azure_storage.patience import RetryBudget
from shared.azure_storage.refusals import storage_errors
from shared.azure_storage.transport import Credential, check_account_url, client_options
from shared.domain.replication import CopyState
from shared.errors import (
    BlobAlreadyExists,
    BlobImmutable,
    BlobNotFound,
    BlockListInvalid,
    Corrupt,
    StorageUnavailable,
)
from shared.repository.blob_store import NO_METADATA, BlobInfo, BlobName, Metadata

# Data actions below Microsoft.Storage/storageAccounts/blobServices/containers/, as roles name them.
_ADD = "blobs/add/action"
_READ = "blobs/read"
_DELETE = "blobs/delete"
_CREATE_CONTAINER = "containers/write"

# CRC-64/NVME runs at memory speed; MD5 is what is left where the compiled extension has no wheel.
_CHECKSUM: Literal["crc64", "md5"] = (
    "crc64" if find_spec("azure.storage.extensions") is not None else "md5"
)
_OPAQUE = ContentSettings(content_type="application/octet-stream")
# One range is one GET, and one small blob one PUT: the SDK shall not cut them into pieces.
_NEVER_CUT = 1 << 30
# List Blobs returns at most 5,000 per page.
_PAGE = 5000
# Answers for another range than was asked are not repeated by the SDK; bodies that end early are.
_READ_ATTEMPTS = 3


def open_blob_store(
    account_url: str,
    credential: Credential,
    *,
    ca_file: str | None = None,
    retry: RetryBudget | None = None,
    threads: int = 16,
) -> "AzureBlobStore":
    """`account_url` as in https://name.blob.core.windows.net; nothing is sent yet.

    `ca_file` replaces the system's certificate authorities. Raises AccountUrlInvalid.
    """
    check_account_url(account_url, credential)
    options = client_options(
        account_url, ca_file=ca_file, retry=retry or RetryBudget(), threads=threads
    )
    service = BlobServiceClient(
        account_url,
        credential,
        max_single_get_size=_NEVER_CUT,
        max_chunk_get_size=_NEVER_CUT,
        max_single_put_size=_NEVER_CUT,
        **options,
    )
    return AzureBlobStore(service)


class AzureBlobStore:
    """See shared.repository.blob_store.BlobStore for the contract."""

    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service

    def close(self) -> None:
        self._service.close()

    def create_container(self, container: str) -> None:
        """For development and `pgkeep check`; idempotent. The writer's identity may not."""
        with storage_errors(container, needs=_CREATE_CONTAINER):
            try:
                self._service.create_container(container)
            except ResourceExistsError:
                return

    def create(self, name: BlobName, data: bytes, *, metadata: Metadata = NO_METADATA) -> BlobInfo:
        try:
            with storage_errors(str(name), needs=_ADD):
                answer = self._blob(name).upload_blob(
                    data,
                    metadata=dict(metadata) or None,
                    overwrite=False,
                    validate_content=_CHECKSUM,
                    content_settings=_OPAQUE,
                )
        except (BlobAlreadyExists, BlobImmutable):
            return self._settle_created(name, data)
        etag = _bare(answer["etag"])
        return BlobInfo(name, len(data), etag, answer["last_modified"], metadata)

    def stage_block(self, name: BlobName, block_id: str, data: bytes) -> None:
        with storage_errors(str(name), needs=_ADD):
            self._blob(name).stage_block(block_id, data, len(data), validate_content=_CHECKSUM)

    def commit_blocks(self, name: BlobName, block_ids: Sequence[str], *, size: int) -> BlobInfo:
        try:
            with storage_errors(str(name), needs=_ADD):
                self._blob(name).commit_block_list(
                    [BlobBlock(block_id) for block_id in block_ids],
                    content_settings=_OPAQUE,
                    match_condition=MatchConditions.IfMissing,
                )
        except (BlobAlreadyExists, BlobImmutable, BlockListInvalid):
            if not self._is_made_of(name, block_ids):
                raise
        info = self.head(name)
        if info.size != size:
            raise Corrupt(f"{name} has {info.size} bytes, its blocks add up to {size}")
        return info

    def head(self, name: BlobName) -> BlobInfo:
        with storage_errors(str(name), needs=_READ):
            return _info(name.container, self._blob(name).get_blob_properties())

    def read(self, name: BlobName, *, limit: int) -> bytes:
        told = "nothing"
        for _ in range(_READ_ATTEMPTS):
            # One request, not a HEAD before: a rebuild of the catalogue reads every document.
            data, told = self._get(name, 0, limit + 1)
            size = _total(told, data)
            if size is not None and size > limit:
                raise Corrupt(f"{name} has {size} bytes, more than the {limit} it may have")
            if len(data) == size:
                return data
        raise Corrupt(f"{name}: asked for all of it, storage answered {told!r}")

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        return self._read_exactly(name, offset, length)

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        client = self._service.get_container_client(container)
        blobs = client.list_blobs(
            name_starts_with=prefix or None,
            include=["metadata"],
            results_per_page=min(page or _PAGE, _PAGE),
            start_from=start if start > prefix else None,
        )
        previous = ""
        with storage_errors(f"{container}/{prefix}", needs=_READ):
            for blob in blobs:
                if blob.name <= previous:
                    raise StorageUnavailable(
                        f"{container}: listed {blob.name!r} after {previous!r}, out of order",
                        hint="The account must not have a hierarchical namespace; list it again.",
                    )
                previous = blob.name
                if blob.name >= start:  # services before version 2026-02-06 ignore `start_from`
                    yield _info(container, blob)

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        client = self._service.get_container_client(container)
        found = client.walk_blobs(name_starts_with=folder or None, results_per_page=_PAGE)
        with storage_errors(f"{container}/{folder}", needs=_READ):
            return sorted(item.name.removeprefix(folder) for item in found)

    def delete(self, name: BlobName) -> None:
        with storage_errors(str(name), needs=_DELETE):
            self._blob(name).delete_blob()

    def _blob(self, name: BlobName) -> BlobClient:
        return self._service.get_blob_client(name.container, name.path)

    def _settle_created(self, name: BlobName, data: bytes) -> BlobInfo:
        """The name is taken: by these very bytes, or by others?"""
        try:
            info = self.head(name)
        except BlobNotFound:  # so says Azurite when there are uncommitted blocks
            raise BlobAlreadyExists(f"{name} has blocks that nobody has committed") from None
        if info.size == len(data) and self._read_exactly(name, 0, info.size) == data:
            return info
        raise BlobAlreadyExists(f"{name} holds other bytes, {info.size} of {info.modified:%F %TZ}")

    def _is_made_of(self, name: BlobName, block_ids: Sequence[str]) -> bool:
        try:
            with storage_errors(str(name), needs=_READ):
                committed, _ = self._blob(name).get_block_list("committed")
        except BlobNotFound:
            return False
        return [block.id for block in committed] == [*block_ids]

    def _read_exactly(self, name: BlobName, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        told = "nothing"
        for _ in range(_READ_ATTEMPTS):
            data, told = self._get(name, offset, length)
            if told.startswith(f"bytes {offset}-{offset + length - 1}/") and len(data) == length:
                return data
            if told.startswith(f"bytes {offset}-"):
                break  # an honest answer: the blob is shorter
        wanted = f"bytes {offset}-{offset + length - 1}"
        raise Corrupt(f"{name}: asked for {wanted}, storage answered {told!r}")

    def _get(self, name: BlobName, offset: int, length: int) -> tuple[bytes, str]:
        """One GET: the bytes, and the range that storage says they are."""
        told = ""

        def note_range(response: PipelineResponse[Any, Any]) -> None:
            nonlocal told
            told = response.http_response.headers.get("Content-Range", "")

        with storage_errors(str(name), needs=_READ):
            try:
                stream = self._blob(name).download_blob(
                    offset,
                    length,
                    max_concurrency=1,
                    decompress=False,
                    raw_response_hook=note_range,
                )
                # In one chunk, which readall() would copy twice.
                return b"".join(stream.chunks()), told
            except (ValueError, IndexError):
                return b"", told  # the SDK could not make sense of the Content-Range


def _total(told: str, data: bytes) -> int | None:
    """Size of the whole blob by the Content-Range, or None if that makes no sense.

    An empty blob has no range: Azure sends no header then, Azurite `bytes 0--1/0`.
    """
    if not told and not data:
        return 0
    match = re.fullmatch(r"bytes 0--?\d+/(\d+)", told)
    return int(match[1]) if match else None


def _info(container: str, blob: BlobProperties) -> BlobInfo:
    named = BlobName(container, blob.name)
    metadata = blob.metadata or NO_METADATA
    # An enumeration whose members are texts, or the text itself when the SDK does not know it.
    tier = blob.blob_tier and str.__str__(blob.blob_tier)
    etag, copied = _bare(blob.etag), _copied(blob)
    return BlobInfo(named, blob.size, etag, blob.last_modified, metadata, tier, copied)


def _copied(blob: BlobProperties) -> CopyState | None:
    """Of several rules the worst tells. Headers have small letters, the SDK's type large ones."""
    policies = blob.object_replication_source_properties or []
    told = {str(rule.status).lower() for policy in policies for rule in policy.rules}
    if CopyState.FAILED in told:
        return CopyState.FAILED
    return CopyState.COMPLETE if told == {CopyState.COMPLETE} else None


def _bare(etag: str) -> str:
    """Listings give ETags without the quotes that headers have."""
    return etag.strip('"')
