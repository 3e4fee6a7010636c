"""What Azure Storage's refusals mean to pgkeep: foreign exceptions become ours here, once.

Codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and its
neighbours common-rest-api-error-codes and queue-service-error-codes.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from urllib3.exceptions import IncompleteRead, NameResolutionError

from shared.errors import (
    BlobAlreadyExists,
    BlobArchived,
    BlobImmutable,
    BlobNotFound,
    BlockListInvalid,
    ContainerNotFound,
    Corrupt,
    LeaseHeld,
    LeaseLost,
    MessageGone,
    PgkeepError,
    QueueNotFound,
    StorageDenied,
    StorageRequestRefused,
    StorageUnavailable,
    TransferCorrupt,
)


class _Meaning(NamedTuple):
    error: type[PgkeepError]
    fact: str
    hint: str | None = None


_TAKEN = _Meaning(BlobAlreadyExists, "exists already")
_ARCHIVED = _Meaning(BlobArchived, "is in the archive tier and cannot be read")
_BLOCKS = _Meaning(BlockListInvalid, "storage does not hold the blocks that were named")
_HURT = _Meaning(TransferCorrupt, "storage received other bytes than were sent")
_NO_CONTAINER = _Meaning(ContainerNotFound, "the container does not exist")
_NO_QUEUE = _Meaning(QueueNotFound, "the queue does not exist")
_RIGHT = _Meaning(StorageDenied, "the identity lacks the right {needs}")
_NOT_BELIEVED = _Meaning(
    StorageDenied,
    "the token or key was not accepted",
    "Check tenant, account name, key and this machine's clock (15 min is the limit).",
)
_FIREWALL = _Meaning(
    StorageDenied,
    "the account's network rules, or the rights of a SAS, refuse {needs} from here",
    "Check the storage firewall, and that the private endpoint is the way taken.",
)
_DISABLED = _Meaning(
    StorageDenied, "the storage account is disabled", "Look at the subscription's state and bill."
)
_KEYLESS = _Meaning(
    StorageDenied, "the account takes no account keys", "Use a managed identity, not a key."
)
_HELD = _Meaning(LeaseHeld, "is leased by somebody else")
_LOST = _Meaning(LeaseLost, "the lease is gone")
_GONE = _Meaning(MessageGone, "the message is no longer held")

_MEANINGS: dict[str, _Meaning] = {
    "BlobNotFound": _Meaning(BlobNotFound, "does not exist"),
    "ContainerNotFound": _NO_CONTAINER,
    "ContainerBeingDeleted": _NO_CONTAINER,
    "ContainerDisabled": _NO_CONTAINER,
    "QueueNotFound": _NO_QUEUE,
    "QueueBeingDeleted": _NO_QUEUE,
    "BlobAlreadyExists": _TAKEN,
    # The answer to an identity that may add but not overwrite.
    "UnauthorizedBlobOverwrite": _TAKEN,
    "BlobImmutableDueToPolicy": _Meaning(BlobImmutable, "is kept by an immutability policy"),
    "BlobImmutableDueToLegalHold": _Meaning(BlobImmutable, "is kept by a legal hold"),
    "BlobArchived": _ARCHIVED,
    "BlobBeingRehydrated": _ARCHIVED,
    "InvalidBlockList": _BLOCKS,
    "InvalidBlobOrBlock": _BLOCKS,
    "Md5Mismatch": _HURT,
    "Crc64Mismatch": _HURT,
    # Nothing here is ever overwritten, so another ETag means that somebody meddled.
    "ConditionNotMet": _Meaning(Corrupt, "changed while it was read"),
    "InvalidRange": _Meaning(Corrupt, "ends before the range that was asked for"),
    "AuthorizationPermissionMismatch": _RIGHT,
    "InsufficientAccountPermissions": _RIGHT,
    "AuthorizationResourceTypeMismatch": _RIGHT,
    "AuthorizationServiceMismatch": _RIGHT,
    "AuthorizationFailure": _FIREWALL,
    "AuthorizationSourceIPMismatch": _FIREWALL,
    "AuthenticationFailed": _NOT_BELIEVED,
    "InvalidAuthenticationInfo": _NOT_BELIEVED,
    "NoAuthenticationInformation": _NOT_BELIEVED,
    "AccountIsDisabled": _DISABLED,
    "KeyBasedAuthenticationNotPermitted": _KEYLESS,
    "LeaseAlreadyPresent": _HELD,
    "LeaseIsBreakingAndCannotBeAcquired": _HELD,
    "LeaseIdMissing": _HELD,
    "LeaseIdMismatchWithLeaseOperation": _LOST,
    "LeaseIdMismatchWithBlobOperation": _LOST,
    "LeaseNotPresentWithLeaseOperation": _LOST,
    "LeaseNotPresentWithBlobOperation": _LOST,
    "LeaseIsBrokenAndCannotBeRenewed": _LOST,
    "LeaseLost": _LOST,
    "MessageNotFound": _GONE,
    "PopReceiptMismatch": _GONE,
}


@contextmanager
def storage_errors(what: str, *, needs: str = "") -> Iterator[None]:
    """The SDK's exceptions become ours. `what` is the fact's subject, `needs` a data action."""
    try:
        yield
    except AzureError as error:
        raise meaning_of(error, what, needs) from error


def meaning_of(error: AzureError, what: str, needs: str = "") -> PgkeepError:
    """Our error for one of the SDK's."""
    if isinstance(error, HttpResponseError) and error.status_code:
        return _answered(error, what, needs)
    if any(isinstance(cause, IncompleteReadError | IncompleteRead) for cause in causes(error)):
        return Corrupt(f"{what}: fewer bytes came than were announced")
    if isinstance(error, ClientAuthenticationError):
        return StorageDenied(f"{what}: no token for azure storage: {_first_line(error)}")
    return _unanswered(error, what)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it, which azure, requests and urllib3 hide in attributes."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        hidden = (getattr(cause, name, None) for name in ("inner_exception", "reason"))
        led_to = (cause.__cause__, cause.__context__, *hidden, *cause.args)
        waiting.extend(other for other in led_to if isinstance(other, BaseException))


def _answered(error: HttpResponseError, what: str, needs: str) -> PgkeepError:
    code = str(getattr(error.error_code, "value", error.error_code or ""))  # type: ignore[attr-defined]
    told = f"HTTP {error.status_code} {code}".rstrip()
    meaning = _MEANINGS.get(code) or _by_status(error.status_code or 0)
    fact = meaning.fact.format(needs=needs or "for this")
    return meaning.error(f"{what}: {fact} ({told})", hint=meaning.hint)


def _by_status(status: int) -> _Meaning:
    if status in {401, 403}:
        return _RIGHT
    if status == 404:  # noqa: PLR2004 (HEAD has no body, and old API versions no code header)
        return _Meaning(BlobNotFound, "does not exist")
    if status in {408, 429} or status >= 500:  # noqa: PLR2004
        return _Meaning(StorageUnavailable, "azure storage is busy or out of order")
    return _Meaning(StorageRequestRefused, "azure storage refuses the request")


def _unanswered(error: AzureError, what: str) -> PgkeepError:
    roots = list(causes(error))
    if any(isinstance(root, NameResolutionError | socket.gaierror) for root in roots):
        hint = "Check the account's name, DNS, and the zone link of the private endpoint."
        return StorageUnavailable(f"{what}: the account's host name does not resolve", hint=hint)
    tls = next((root for root in roots if isinstance(root, ssl.SSLError)), None)
    if tls is not None:
        reason = getattr(tls, "verify_message", "") or tls.reason
        hint = "Check the CA file, this machine's clock, and for a proxy that opens TLS."
        return StorageUnavailable(f"{what}: tls failed: {reason}", hint=hint)
    if isinstance(error, ServiceRequestTimeoutError):
        return StorageUnavailable(f"{what}: no connection within the time limit")
    if isinstance(error, ServiceResponseTimeoutError):
        return StorageUnavailable(f"{what}: no answer within the time limit")
    if any(isinstance(root, ConnectionRefusedError) for root in roots):
        return StorageUnavailable(f"{what}: the connection was refused")
    return StorageUnavailable(f"{what}: the connection broke")


def _first_line(error: AzureError) -> str:
    return str(error).strip().partition("\n")[0]
