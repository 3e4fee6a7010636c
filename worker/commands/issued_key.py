"""Data keys of a writer: each is recorded, signed and durable, before it seals a byte."""

from dataclasses import dataclass

from shared.domain.cluster import ClusterName
from shared.repository import layout
from shared.repository.documents import ClusterDocument
from shared.repository.key_record import KeyPurpose, sign_key_record
from shared.repository.object_aad import aad
from worker.commands.cluster_identity import signer_of
from worker.commands.services import Services
from worker.keys.data_key import DataKey
from worker.keys.key_ring import issue_data_key


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A data key in use for one cluster."""

    kid: str
    data_key: DataKey
    cluster: ClusterDocument

    def for_object(self, object_name: str) -> tuple[bytes, bytes]:
        """Data key and AAD for the object that the AAD calls `object_name`."""
        identity = self.cluster
        bound = aad(identity.cluster_uuid, identity.system_identifier, self.kid, object_name)
        return self.data_key.reveal(), bound


def issue_key(services: Services, cluster: ClusterDocument, purpose: KeyPurpose) -> IssuedKey:
    """A fresh key whose record is in the repository. Raises TooFewRecipients in production."""
    data_key, record = issue_data_key(services.key_ring, cluster, purpose, services.clocks.now())
    production = services.settings.profile == "production"
    raw = sign_key_record(record, signer_of(services), production=production)
    services.store.create(layout.key_record(ClusterName(cluster.cluster), record.kid), raw)
    return IssuedKey(record.kid, data_key, cluster)
