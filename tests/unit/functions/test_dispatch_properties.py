"""The dispatcher over a small fleet, whatever the clock does and wherever it dies.

The catalogue is the one in memory, which passes the contract of the one in PostgreSQL.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from functions.queue_job_event import take_in_event
from functions.timer_dispatch import dispatch
from functions.wiring import Services
from shared.catalogue.ports import Catalogue
from shared.domain.job import JobEventKind, JobState
from shared.domain.schedule import ScheduleKind, latest_tick, next_tick
from shared.jobs.messages import JOB_QUEUES, AnyJob, BackupJob, ExpireJob, JobEvent, parse_job
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.settings import Settings
from tests.harness.control_plane import Clock
from tests.harness.memory_catalogue import MemoryCatalogue
from tests.harness.memory_queue import MemoryQueue

CLUSTERS = ("a", "b", "c")
CRONS = st.sampled_from(["*/10 * * * *", "0 * * * *", "17 */2 * * *", "0 3 * * *"])
PER_HOST, PER_ACCOUNT = 1, 2


class Died(Exception):
    """The function app, in the midst of something."""


@dataclass
class Mortal:
    """The catalogue, until `calls` are left: then nothing answers any more. None: immortal."""

    catalogue: MemoryCatalogue
    calls: int | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.calls is not None:
                self.calls -= 1
                if self.calls < 0:
                    raise Died
            return getattr(self.catalogue, name)(*args, **kwargs)

        return call


@dataclass
class World:
    """Three clusters, two of them on one host, and workers that do what they are told."""

    settings: Settings
    catalogue: Mortal = field(default_factory=lambda: Mortal(MemoryCatalogue()))
    clock: Clock = field(default_factory=Clock)
    queues: dict[str, MemoryQueue] = field(
        default_factory=lambda: {name: MemoryQueue() for name in JOB_QUEUES}
    )
    taken: dict[UUID, AnyJob] = field(default_factory=dict)
    furthest: datetime | None = None

    def services(self) -> Services:
        return Services(
            settings=self.settings,
            store=DirectoryBlobStore(Path("nowhere")),
            queues=self.queues,
            events=MemoryQueue(),
            catalogue=cast("Catalogue", self.catalogue),
            pinned={},
            clock=self.clock,
            new_id=lambda: UUID(int=len(self.taken)),
        )

    def dispatch(self, dies_after: int | None) -> None:
        self.catalogue.calls = dies_after
        self.furthest = max(self.furthest or self.clock.now, self.clock.now)
        try:
            dispatch(self.services())
        except Died:
            pass
        finally:
            self.catalogue.calls = None
        for queue in self.queues.values():
            while (message := queue.receive(60)) is not None:
                queue.delete(message)
                job = parse_job(message.body)
                self.taken[job.job_id] = job

    def finish(self) -> None:
        """Every job that a worker has."""
        for job in self.running():
            event = JobEvent(
                job_id=job.job_id, cluster=job.cluster, verb=job.verb, attempt=1,
                kind=JobEventKind.FINISHED, at=self.clock(), succeeded=True,
            )  # fmt: skip
            take_in_event(self.services(), event.model_dump_json().encode())

    def running(self) -> list[AnyJob]:
        known = self.catalogue.catalogue
        return [
            job for one, job in self.taken.items() if not known.job(one).progress.state.terminal
        ]

    def active(self) -> Counter[tuple[str, str]]:
        records = [
            job
            for state in (JobState.REQUESTED, JobState.RUNNING)
            for job in self.catalogue.catalogue.jobs(state=state, limit=1000)
        ]
        return Counter((job.cluster, job.verb.value) for job in records)


def fleet_settings(full: str, incremental: str, expire: str, spread: int) -> Settings:
    schedule = {"full": full, "incremental": incremental, "expire": expire}
    off = ("verify", "drill_quick", "drill_extended", "drill_simulation", "drill_disaster", "audit")
    return Settings.model_validate(
        {
            "repository": {"type": "directory", "path": "/nowhere"},
            "cluster": [
                {"name": name, "dsn": "host=x" if name != "c" else "host=y"} for name in CLUSTERS
            ],
            "policy": {"schedule": {**schedule, **dict.fromkeys(off, False)}},
            "fleet": {
                "spread_minutes": spread,
                "per_host": PER_HOST,
                "per_account": PER_ACCOUNT,
            },
        }
    )


STEPS = st.lists(
    st.tuples(
        st.integers(-90, 400),  # minutes by which the clock moves
        st.none() | st.integers(0, 8),  # calls of the catalogue until the app dies
        st.booleans(),  # whether jobs end before
        st.none() | CRONS,  # what the schedule of incrementals becomes
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(CRONS, CRONS, CRONS, st.integers(0, 30), STEPS)
def test_s02_s05_s11_no_tick_twice_no_limit_passed_and_nothing_lost(
    full: str,
    incremental: str,
    expire: str,
    spread: int,
    steps: list[tuple[int, int | None, bool, str | None]],
) -> None:
    fleet = World(fleet_settings(full, incremental, expire, spread))
    for minutes, dies_after, finished, changed in steps:
        if finished:
            fleet.finish()
        if changed:
            fleet.settings = fleet_settings(full, changed, expire, spread)
        fleet.clock.advance(minutes=minutes)
        fleet.dispatch(dies_after)
        assert_limits(fleet.active())
    settle(fleet)
    assert_each_tick_once(fleet)
    assert_nothing_owed(fleet)


def assert_limits(active: Counter[tuple[str, str]]) -> None:
    assert all(count == 1 for count in active.values())
    assert sum(active.values()) <= PER_ACCOUNT
    assert sum(verb == "backup" for cluster, verb in active if cluster != "c") <= PER_HOST
    assert not any((cluster, "expire") in active for cluster, verb in active if verb == "backup")


def settle(fleet: World) -> None:
    """The clock is right again, and for an hour and a half nobody dies: enough for any backlog.

    What came due meanwhile comes with the same minutes, so that in the end only news can wait. What
    a clock that was ahead has dealt with, or moved on to its next tick, waits for that time.
    """
    furthest = max(fleet.furthest or fleet.clock.now, fleet.clock.now)
    fleet.clock.now = furthest + timedelta(minutes=1)
    for _ in range(90):
        fleet.dispatch(None)
        assert_limits(fleet.active())
        fleet.finish()
        fleet.clock.advance(minutes=1)


def assert_each_tick_once(fleet: World) -> None:
    """Whatever was sent again is the same job."""
    kinds = [
        (job.cluster, job.kind.value if isinstance(job, BackupJob) else job.verb.value, job.due)
        for job in fleet.taken.values()
        if isinstance(job, BackupJob | ExpireJob)
    ]
    assert len(kinds) == len(fleet.taken) == len(set(kinds))


def assert_nothing_owed(fleet: World) -> None:
    """Nothing waits but for what came up in the last minutes, and all comes up at its next tick.

    What has one schedule for all the time has no tick that was not dealt with, either.
    """
    now = fleet.clock.now
    soon = now - timedelta(minutes=15)
    entries = fleet.catalogue.catalogue.agenda()
    assert len(entries) == 3 * len(CLUSTERS)
    for entry in entries:
        assert soon <= entry.next_at <= next_tick(entry.cron, now - entry.delay) + entry.delay
        assert entry.served is not None
        if entry.kind is not ScheduleKind.INCREMENTAL:
            assert entry.served >= latest_tick(entry.cron, soon - entry.delay)


def test_only_what_is_due_is_looked_at() -> None:
    fleet = World(fleet_settings("0 3 * * *", "0 3 * * *", "30 6 * * *", 0))
    seen = list[int]()

    class Counting(MemoryCatalogue):
        def due_entries(self, now: datetime, limit: int) -> Any:
            found = super().due_entries(now, limit)
            seen.append(len(found))
            return found

        def agenda(self, *args: Any) -> Any:
            seen.append(-1)
            return super().agenda(*args)

    fleet.catalogue.catalogue = Counting()
    fleet.dispatch(None)
    for _ in range(3):
        fleet.finish()
        fleet.clock.advance(minutes=1)
        fleet.dispatch(None)
    assert seen == [-1, 3, 1, 0, 0]  # two start at once, the third when there is room
