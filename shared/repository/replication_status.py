"""The port to how far the account's copy in the second region is.

Two implementations (azure_replication_status, recorded_replication_status) pass one contract
suite, tests/contract/test_replication_status.py.
"""

from typing import Protocol

from shared.domain.replication import GeoReplication
from shared.errors import Unavailable


class ReplicationUnknown(Unavailable):
    """What should say how far replication is cannot be read, or makes no sense."""

    code = "replication-unknown"
    hint = "Check that the account is RA-GRS or RA-GZRS, and `repository.secondary_url`."


class ReplicationStatus(Protocol):
    """One question; the answer is of the whole account."""

    def read(self) -> GeoReplication:
        """Raises ReplicationUnknown, StorageDenied, StorageUnavailable."""
        ...
