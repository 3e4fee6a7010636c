"""One fleet, one seed, so many days: put together, run, and judged.

Real are the functions of the control plane with the rules that they call, `expire` of the worker,
messages, documents and their signatures. In memory, by the contracts of the real ones, are the
catalogue, the blob store and the queues. Modelled are servers, WAL writers, workers, the host of
the functions and the clocks.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

from functions.wiring import Services
from shared.domain.cluster import cluster_name
from shared.jobs.messages import EVENT_QUEUE, JOB_QUEUES
from shared.repository import layout
from shared.repository.account_policies import PolicyReader
from shared.settings import ClusterSettings, DirectoryRepository, Settings
from shared.settings.sections import Fleet
from tests.harness.memory_blob_store import MemoryBlobStore
from tests.harness.memory_catalogue import MemoryCatalogue
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import SignedRepository
from tests.harness.worker_services import Silent
from tests.simulation.account import Account
from tests.simulation.app import Cadence, FunctionApp, blob_inbox, event_inbox
from tests.simulation.engine import BEGIN, Engine, days, hours, minutes
from tests.simulation.faults import Faults
from tests.simulation.happenings import Happenings
from tests.simulation.invariants import Invariants
from tests.simulation.leases import VirtualLeases
from tests.simulation.servers import Server
from tests.simulation.shortcuts import shortcuts
from tests.simulation.verbs import perform
from tests.simulation.weather import Part, Weather, exposed
from tests.simulation.workers import Workers
from tests.simulation.world import World
from worker import wiring

CANARY: Final = "canary-5d1f0c9a"
DEFAULT_POLICY: Final[dict[str, Any]] = {
    "retention": {"full_days": 14, "incremental_days": 5, "wal_days": 14},
    "schedule": {"audit": False},
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. `every_minute`: also those in which there is nothing to do."""

    seed: int
    clusters: int = 5
    days: int = 60
    faults: Faults = field(default_factory=Faults)
    policy: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_POLICY))
    cadence: Cadence = field(default_factory=Cadence)
    every_minute: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`broken` are sentences about invariants; `fired` counts what went wrong on purpose."""

    plan: Plan
    broken: tuple[str, ...]
    fired: Counter[str]
    steps: int
    jobs: int
    backups: int
    found: Counter[str]


class Bell(MemoryQueue):
    """A queue of jobs whose workers come when something is sent."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        super().__init__(simulation.seconds)
        self._simulation, self._name = simulation, name

    def send(self, body: str, *, delay_s: int = 0) -> None:
        super().send(body, delay_s=delay_s)
        self._simulation.invariants.on_message(body)
        pause = timedelta(seconds=self._simulation.random.uniform(1, 30))
        self._simulation.workers.call(self._name, pause)


class Simulation:
    """A world and those who act in it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.engine = Engine()
        self.random = Random(plan.seed)  # noqa: S311 - to be repeated, not to be secret
        self.weather = Weather(lambda: self.engine.now)
        self.account = Account(self.engine)
        self.bells = {name: Bell(self, name) for name in JOB_QUEUES}
        self.world = self._world()
        self.app = self._app()
        self.world.app = self.app
        self.invariants = Invariants(self.world, self.app, self.account)
        self.world.judge = self.invariants
        self.happenings = Happenings(self.world, self.app, self.account)
        self.workers = Workers(self.world, perform, self.app.put_aside)

    def run(self) -> Outcome:
        with shortcuts():
            self._begin()
            self.engine.run(BEGIN + days(self.plan.days), self.invariants.after_step)
            self._calm_down()
        return self._outcome()

    def _begin(self) -> None:
        for server in self.world.servers.values():
            self.world.repository.register(server.name)
        self.app.wake()
        cadence = self.plan.cadence
        self._each(cadence.look, minutes(3), self._look)
        self._each(cadence.reconcile, minutes(17), self.app.reconcile)
        self._each(cadence.judge, hours(23.8), self._close_the_day)
        self.happenings.begin()

    def _calm_down(self) -> None:
        """The last two days without trouble: what is still open then has a reason that stays."""
        self.happenings.end()
        self.engine.run(self.engine.now + days(2), self.invariants.after_step)
        self.app.reconcile()
        self._look()
        self.invariants.at_the_end()

    def _each(self, pause: timedelta, first: timedelta, act: Any) -> None:
        def again() -> None:
            act()
            self.engine.after(pause, again)

        self.engine.after(first, again)

    def _look(self) -> bool:
        """WAL is archived all the time; that it is seen only now makes no difference."""
        for server in self.world.servers.values():
            server.advance(self.engine.now)
            server.archive(self.world.worker_store, self.engine.now)
            if server.is_up(self.engine.now) and server.writer_is_up(self.engine.now):
                self.app.tell_wal(server.progress(self.engine.now))
        return self.app.look()

    def _close_the_day(self) -> None:
        """Reconcile, look, judge; when anything goes wrong meanwhile, once more, until it does not:
        who was hindered to look knows no better.
        """
        known = self.weather.fired.total()
        done = self.weather.fair and self.app.reconcile() and self._look() and self.app.reconcile()
        if done and self.weather.fired.total() == known:
            self.invariants.at_the_end_of_a_day()
        else:
            self.engine.after(minutes(10), self._close_the_day)

    def _world(self) -> World:
        settings = self._settings()
        store = MemoryBlobStore(layout.CONTAINERS, lambda: self.engine.now)
        worker_store = exposed(store, Part.STORAGE, self.weather, app=False)
        repository = SignedRepository(worker_store)
        leases = VirtualLeases(self.engine)
        worker = replace(
            wiring.services(settings, Silent()),
            store=worker_store,
            leases=leases,
            pinned=repository.pinned,
            signer=repository.signer,
        )
        return World(
            engine=self.engine,
            random=self.random,
            faults=self.plan.faults,
            weather=self.weather,
            settings=settings,
            store=store,
            catalogue=MemoryCatalogue(),
            leases=leases,
            servers={c.name: Server(cluster_name(c.name), BEGIN) for c in settings.cluster},
            repository=repository,
            worker_store=worker_store,
            worker_queues={
                name: exposed(queue, Part.QUEUES, self.weather, app=False)
                for name, queue in self.bells.items()
            },
            worker=worker,
        )

    def _app(self) -> FunctionApp:
        own = MemoryQueue(self.seconds)
        events = exposed(own, Part.QUEUES, self.weather, app=False)
        catalogue = self.world.catalogue
        services = Services(
            settings=self.world.settings,
            store=exposed(self.world.store, Part.STORAGE, self.weather, app=True),
            queues={
                name: exposed(queue, Part.QUEUES, self.weather, app=True)
                for name, queue in self.bells.items()
            },
            events=exposed(own, Part.QUEUES, self.weather, app=True),
            catalogue=exposed(catalogue, Part.CATALOGUE, self.weather, app=True),
            pinned=self.world.repository.pinned,
            clock=lambda: self.engine.now + self.weather.ahead,
            new_id=lambda: UUID(int=self.random.getrandbits(128)),
            policies=PolicyReader(self.account, lambda: self.engine.now, fresh_for=minutes(5)),
            replication=self.account,
        )
        return FunctionApp(
            engine=self.engine,
            random=self.random,
            faults=self.plan.faults,
            weather=self.weather,
            services=services,
            events=event_inbox(EVENT_QUEUE, events, own, self.seconds),
            blobs=blob_inbox(self.seconds),
            busy=lambda: catalogue.busy,
            next_turn=catalogue.next_turn,
            every_minute=self.plan.every_minute,
        )

    def seconds(self) -> float:
        return (self.engine.now - BEGIN).total_seconds()

    def _settings(self) -> Settings:
        """The password of each is the canary: no message and no document may ever hold it."""
        clusters = [
            ClusterSettings(
                name=f"c{number:05d}", dsn=f"host=h{number} password={CANARY}", **self.plan.policy
            )
            for number in range(self.plan.clusters)
        ]
        return Settings(
            profile="development",
            repository=DirectoryRepository(type="directory", path=Path("/nowhere")),
            fleet=Fleet(spread_minutes=180, per_account=max(16, self.plan.clusters // 4)),
            cluster=tuple(clusters),
        )

    def _outcome(self) -> Outcome:
        jobs = self.world.catalogue.jobs(limit=10**9)
        return Outcome(
            plan=self.plan,
            broken=tuple(self.invariants.broken),
            fired=self.weather.fired,
            steps=self.engine.steps,
            jobs=len(jobs),
            backups=sum(map(len, self.world.truth.backups.values())),
            found=self.invariants.found,
        )
