"""Blobs, queues and leases: what Azure Storage, or the directory in its place, refuses."""

from shared.errors.families import (
    Conflict,
    Corrupt,
    Denied,
    InvalidInput,
    NotFound,
    Refused,
    Unavailable,
)


class MessageInvalid(InvalidInput):
    """A job message or event that does not fit its schema."""

    code = "message-invalid"
    hint = "It is set aside in the poison queue; docs/reference/messages.md has the schema."


class BlobArchived(Refused):
    """A blob whose tier is Archive: it cannot be read before it is rehydrated."""

    code = "blob-archived"
    hint = "Set the blob's tier to Hot, wait until it is rehydrated (up to 15 h), then try again."


class StorageRequestRefused(Refused):
    """Azure Storage will not do this, for a reason that has no class of its own."""

    code = "storage-request-refused"
    hint = "Look up the service's error code that the message names; trying again will not help."


class NoSecondary(Refused):
    """The copy in the second region is asked for, and the repository has none that can be read."""

    code = "no-secondary"
    hint = "Set `repository.secondary_url`; the account must be RA-GRS or RA-GZRS."


class AccountKeyRefused(Refused):
    """An account key for an account that is not the emulator's."""

    code = "account-key-refused"
    hint = "Use a managed identity; account keys are for the emulator on this machine alone."


class BlobNotFound(NotFound):
    """A blob that is not in its container."""

    code = "blob-not-found"
    hint = "Look at the container: was the blob deleted, or is this another repository?"


class ContainerNotFound(NotFound):
    """A container that the storage account lacks."""

    code = "container-not-found"
    hint = "`pgkeep check --create-containers` creates those that are missing."


class QueueNotFound(NotFound):
    """A queue that the storage account lacks."""

    code = "queue-not-found"
    hint = "`pgkeep run` creates those that are missing, if its identity may."


class TransferCorrupt(Corrupt):
    """Storage received other bytes than were sent, again and again; nothing was committed."""

    code = "transfer-corrupt"
    hint = "Look at what rewrites traffic on the way to storage: a proxy, a network card, memory."


class StorageDenied(Denied):
    """Azure Storage refused the identity."""

    code = "storage-denied"
    hint = "Check role assignments and the storage firewall for the identity that runs this."


class BlobAlreadyExists(Conflict):
    """A create-only write found the name taken; nothing was overwritten."""

    code = "blob-already-exists"
    hint = "Every name is written once; a second writer must take a new name."


class BlobImmutable(Conflict):
    """An immutability policy or legal hold forbids to delete or overwrite the blob, so far."""

    code = "blob-immutable"
    hint = "Nothing to do: it can be deleted when its retention interval is over."


class BlockListInvalid(Conflict):
    """A commit names blocks that storage does not hold; nothing became visible."""

    code = "block-list-invalid"
    hint = "Run the job again: it stages every block anew under a new name."


class MessageGone(Conflict):
    """A queue message that this receiver no longer holds: visible again, or deleted."""

    code = "message-gone"
    hint = "Another receiver has it; stop this run, its lease decides which of both may commit."


class LeaseHeld(Conflict):
    """Somebody else holds the lease."""

    code = "lease-held"
    hint = "Wait until the holder ends; the lease of a holder that died expires by itself."


class LeaseLost(Conflict):
    """A lease that this holder no longer has; it must not commit anything any more."""

    code = "lease-lost"
    hint = "Nothing was committed after the loss; run the job again."


class StorageUnavailable(Unavailable):
    """Azure Storage does not answer, or answers that it is busy, beyond the retry budget."""

    code = "storage-unavailable"
    hint = "Check network, DNS and the health of the storage account, then run it again."
