"""A control plane for tests: the real services, but a clock and ids of the test's own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from uuid import UUID

from functions.wiring import Services
from shared.catalogue.ports import Catalogue
from shared.jobs.messages import AnyJob, parse_job
from shared.jobs.queue import JobQueue
from shared.repository.account_policies import PolicyReader
from shared.repository.replication_status import ReplicationStatus
from shared.settings import ClusterSettings, DirectoryRepository, Schedule, Settings
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import NOON, SignedRepository


@dataclass
class Clock:
    """Stands still until a test moves it."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **step: float) -> None:
        self.now += timedelta(**step)


@dataclass
class ControlPlane:
    """`schedule` is the one cluster's: what it does not name is switched off."""

    repository: SignedRepository
    catalogue: Catalogue
    queues: Mapping[str, JobQueue]
    clock: Clock = field(default_factory=Clock)
    events: JobQueue = field(default_factory=MemoryQueue)
    policies: PolicyReader | None = None
    replication: ReplicationStatus | None = None
    schedule: Mapping[str, str | bool] = field(
        default_factory=lambda: {"full": "0 3 * * *", "incremental": False}
    )
    _serial: Iterator[int] = field(default_factory=lambda: count(1000))

    @property
    def services(self) -> Services:
        schedule = {**dict.fromkeys(Schedule.model_fields, False), **self.schedule}
        settings = Settings(
            repository=DirectoryRepository(type="directory", path="/nowhere"),
            cluster=(ClusterSettings(name="demo", dsn="host=nowhere", schedule=schedule),),
        )
        return Services(
            settings=settings,
            store=self.repository.store,
            queues=self.queues,
            events=self.events,
            catalogue=self.catalogue,
            pinned=self.repository.pinned,
            clock=self.clock,
            new_id=lambda: UUID(int=next(self._serial)),
            policies=self.policies,
            replication=self.replication,
        )

    def take_jobs(self, queue: str) -> list[AnyJob]:
        """Every job that waits in the queue, taken out of it."""
        jobs = []
        while (message := self.queues[queue].receive(60)) is not None:
            self.queues[queue].delete(message)
            jobs.append(parse_job(message.body))
        return jobs
