"""Everything that there is in one simulated fleet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from shared.domain.cluster import ClusterName
from shared.jobs.messages import AnyJob, BackupJob, ExpireJob
from shared.jobs.queue import JobQueue
from shared.repository.blob_store import BlobName, BlobStore
from shared.settings import Settings
from tests.harness.memory_blob_store import MemoryBlobStore
from tests.harness.memory_catalogue import MemoryCatalogue
from tests.harness.signed_repository import SignedRepository
from tests.simulation.engine import Engine
from tests.simulation.faults import Faults
from tests.simulation.leases import VirtualLeases
from tests.simulation.servers import Server
from tests.simulation.truth import TrueBackup, Truth
from tests.simulation.weather import Weather
from worker.commands.services import Services as WorkerServices


class Ear(Protocol):
    """What the function app hears of."""

    def tell_event(self, body: str) -> None:
        """A worker's report, for the queue. Raises what the queue does."""
        ...

    def tell_blob(self, name: BlobName) -> None:
        """Storage's own event: a blob was committed."""
        ...


class Judge(Protocol):
    """Who is told of each thing that an invariant is about, as soon as it happened."""

    def on_commit(self, backup: TrueBackup) -> None: ...

    def before_expiry(self, cluster: str) -> object: ...

    def after_expiry(self, cluster: str, before: object, now: datetime) -> None: ...


@dataclass
class World:
    """`store` and `catalogue` are the parts themselves, as nobody in the world sees them; what is
    exposed to the weather are `worker_store`, `worker_queues` and what the function app was given.

    `host_ahead`: how far the clocks of the workers' hosts are ahead.
    """

    engine: Engine
    random: Random
    faults: Faults
    weather: Weather
    settings: Settings
    store: MemoryBlobStore
    catalogue: MemoryCatalogue
    leases: VirtualLeases
    servers: Mapping[str, Server]
    repository: SignedRepository
    worker_store: BlobStore
    worker_queues: Mapping[str, JobQueue]
    worker: WorkerServices
    truth: Truth = field(default_factory=Truth)
    host_ahead: timedelta = timedelta()
    app: Ear = field(init=False)
    judge: Judge = field(init=False)

    @property
    def clusters(self) -> list[ClusterName]:
        return [server.name for server in self.servers.values()]

    def note_asked(self, job: AnyJob) -> None:
        """Of one tick there is one job, but for the runs that follow one which was lost."""
        match job:
            case BackupJob(due=due) if due is not None:
                key = (job.cluster, job.kind.value, due.isoformat())
            case ExpireJob(due=due) if due is not None:
                key = (job.cluster, "expire", due.isoformat())
            case _:
                return
        self.truth.asked[key].add(self.catalogue.job(job.job_id).first)
        self.truth.newly_asked.append(key)
