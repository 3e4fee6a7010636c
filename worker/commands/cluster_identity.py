"""Whose backups these are: a cluster's name is bound to one PostgreSQL system at first contact."""

from uuid import uuid4

from shared.domain.cluster import ClusterName
from shared.errors import BlobAlreadyExists, Refused
from shared.repository import layout
from shared.repository.backups import read_cluster
from shared.repository.documents import ClusterDocument
from shared.repository.signatures import Signer, sign_document
from worker.commands.services import Services


class WrongSystem(Refused):
    """Behind the conninfo answers another PostgreSQL system than the registered one."""

    code = "wrong-system"
    hint = (
        "Is the conninfo right? After initdb or pg_upgrade the cluster is a new one: give it a new "
        "name in the settings, so that both histories stay restorable."
    )


class SignerMissing(Refused):
    """Something has to be signed and the settings name no signing key."""

    code = "signer-missing"
    hint = "Set [keys.signing], and pin its public half under [[keys.pinned]]."


class SignerUnbelieved(Refused):
    """The settings sign with a key that they do not pin: no reader would believe the documents."""

    code = "signer-unbelieved"
    hint = "Pin the public half of [keys.signing] under [[keys.pinned]]."


def register(services: Services, cluster: ClusterName, system_identifier: str) -> ClusterDocument:
    """The cluster's document, written now if this is the first contact. Raises WrongSystem."""
    known = read_cluster(services.store, cluster, services.pinned)
    if known is None:
        known = _write(services, cluster, system_identifier)
    if known.system_identifier != system_identifier:
        raise WrongSystem(
            f"cluster {cluster} is system {known.system_identifier}, "
            f"but system {system_identifier} answers"
        )
    return known


def signer_of(services: Services) -> Signer:
    """Raises SignerMissing, SignerUnbelieved: what nobody believes is not worth writing."""
    if services.signer is None:
        raise SignerMissing("the settings name no signing key")
    if services.signer.key_id not in services.pinned:
        raise SignerUnbelieved(f"signing key {services.signer.key_id} is not pinned")
    return services.signer


def _write(services: Services, cluster: ClusterName, system_identifier: str) -> ClusterDocument:
    document = ClusterDocument(
        cluster=cluster,
        cluster_uuid=str(uuid4()),
        system_identifier=system_identifier,
        created_at=services.clocks.now(),
    )
    raw = sign_document(document, signer_of(services))
    try:
        services.store.create(layout.cluster_document(cluster), raw)
    except BlobAlreadyExists:
        # Another worker registered it between our look and our write: what it wrote counts.
        written = read_cluster(services.store, cluster, services.pinned)
        if written is not None:
            return written
        raise
    return document
