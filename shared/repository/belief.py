"""Which errors say that a stored document is at fault, and not the way to it."""

from shared.errors import ClusterUnknown, Corrupt, InvalidInput, PgkeepError
from shared.repository.signatures import FormatTooNew, SignerNotPinned, SignerRevoked

_AT_FAULT = (InvalidInput, Corrupt, FormatTooNew, SignerNotPinned, SignerRevoked, ClusterUnknown)


def is_unbelievable(error: PgkeepError) -> bool:
    """Whether reading the document again, later, would end the same way."""
    return isinstance(error, _AT_FAULT) and not error.retryable
