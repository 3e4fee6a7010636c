"""A control plane without Azurite: a directory, queues in memory, a real catalogue."""

from pathlib import Path

from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.jobs.messages import JOB_QUEUES
from shared.repository import layout
from shared.repository.directory_blob_store import DirectoryBlobStore
from tests.harness.catalogue_server import CatalogueServer
from tests.harness.control_plane import ControlPlane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import SignedRepository


def light_plane(server: CatalogueServer, folder: Path) -> ControlPlane:
    """With the cluster `demo` registered, and nothing of it yet."""
    store = DirectoryBlobStore(folder / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    repository = SignedRepository(store)
    repository.register()
    queues = {name: MemoryQueue() for name in JOB_QUEUES}
    return ControlPlane(repository, PostgresCatalogue(server.database()), queues)
