"""Data keys of one backup, and the names under which they seal its objects."""

from dataclasses import dataclass

from shared.repository.documents import ClusterDocument
from shared.repository.key_record import KeyPurpose
from shared.repository.layout import BackupRef
from worker.commands.issued_key import IssuedKey, issue_key
from worker.commands.services import Services


@dataclass(frozen=True, slots=True)
class BackupKey:
    """A data key in use for one backup."""

    issued: IssuedKey
    ref: BackupRef

    @property
    def kid(self) -> str:
        return self.issued.kid

    def for_object(self, name: str) -> tuple[bytes, bytes]:
        """Data key and AAD for the object of this name."""
        return self.issued.for_object(self.ref.object_name(name))


def issue_backup_key(
    services: Services, cluster: ClusterDocument, ref: BackupRef, purpose: KeyPurpose
) -> BackupKey:
    """A fresh key whose record is in the repository. Raises TooFewRecipients in production."""
    return BackupKey(issue_key(services, cluster, purpose), ref)
