"""Index maintenance inside a window: rebuild invalid and bloated indexes, renew statistics.

Decided first, then done one by one, the greatest gain first. Nothing is begun that would not end
in time by the rate measured so far, and what has been begun is cancelled when the time is over: an
index that was being rebuilt concurrently stays as it was, and its leftover is dropped.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from shared.errors import PgkeepError, Refused, SettingsInvalid
from shared.event_log import log_event
from shared.settings import ClusterSettings, Maintenance
from worker.commands.cluster_login import connect_to
from worker.commands.services import Services
from worker.postgres.table_facts import Connect, mapped_errors
from worker.postgres.upkeep_commands import LOCK_TIMEOUT, UpkeepCommand, execute
from worker.postgres.upkeep_facts import (
    IndexFacts,
    StatisticsFacts,
    databases,
    in_recovery,
    indexes,
    old_statistics,
    size_of,
)

# Bytes a second, until the first rebuild has shown how fast this server is; low on purpose.
FIRST_RATE: Final = 10 << 20
# Each command takes this long in any case: catalogue work, and waiting for older transactions.
LEAST: Final = timedelta(seconds=2)


class MaintenanceOnStandby(Refused):
    """Indexes can only be rebuilt on a primary."""

    code = "maintenance-on-standby"
    hint = "Let the dsn of [cluster.maintenance] lead to the primary."


@dataclass(frozen=True, slots=True)
class Task:
    """One command. `gain` orders tasks of a kind; `bytes` is what has to be read or written."""

    command: UpkeepCommand
    subject: IndexFacts | StatisticsFacts
    reason: str
    bytes: int
    gain: float


@dataclass(frozen=True, slots=True)
class MaintenanceRequest:
    """Nothing is begun that would not end by `until`."""

    until: datetime
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """`problem` None means done. `after` are the bytes of a rebuilt index."""

    task: Task
    milliseconds: int = 0
    after: int | None = None
    problem: str | None = None


@dataclass(slots=True)
class MaintenanceOutcome:
    """`left`: what a later window has to do, with why."""

    done: list[TaskOutcome] = field(default_factory=list)
    failed: list[TaskOutcome] = field(default_factory=list)
    left: list[TaskOutcome] = field(default_factory=list)

    @property
    def freed_bytes(self) -> int:
        rebuilt = (one for one in self.done if one.after is not None)
        return sum(one.task.bytes - (one.after or 0) for one in rebuilt)


def maintain(
    services: Services, cluster: ClusterSettings, request: MaintenanceRequest
) -> MaintenanceOutcome:
    """Raises SettingsInvalid without a dsn, MaintenanceOnStandby, and what connecting raises.

    One task's failure (a lock, a unique violation) does not end the others.
    """
    connect = _connect(cluster)
    tasks = plan_tasks(*_facts(connect, cluster.database), cluster.maintenance)
    if request.dry_run:
        return MaintenanceOutcome(left=[TaskOutcome(task, problem="a dry run") for task in tasks])
    outcome = _carry_out(services, connect, tasks, request.until)
    log_event(
        "maintenance-finished",
        cluster=cluster.name,
        done=len(outcome.done),
        failed=len(outcome.failed),
        left=len(outcome.left),
        freed_bytes=outcome.freed_bytes,
    )
    return outcome


def plan_tasks(
    found: list[IndexFacts], statistics: list[StatisticsFacts], wanted: Maintenance
) -> list[Task]:
    """Leftovers first, then invalid indexes, then bloated ones and old statistics by gain."""
    leftovers = [
        Task(UpkeepCommand.DROP, one, "left over", 0, one.bytes) for one in found if one.leftover
    ]
    invalid = [
        Task(UpkeepCommand.REBUILD, one, "invalid", one.bytes, one.bytes)
        for one in found
        if not one.valid and not one.leftover
    ]
    bloated = [
        Task(UpkeepCommand.REBUILD, one, f"{one.bloat_ratio:.0%} empty", one.bytes, one.bloat_bytes)
        for one in found
        if one.valid and one.bytes >= wanted.least_bytes and one.bloat_ratio >= wanted.bloat_ratio
    ]
    old = [
        Task(UpkeepCommand.ANALYZE, one, f"{one.changed} rows changed", one.bytes, one.share)
        for one in statistics
        if wanted.analyze
    ]
    return [
        task
        for group in (leftovers, invalid, bloated, old)
        for task in sorted(group, key=lambda task: (-task.gain, str(task.subject)))
    ]


def _connect(cluster: ClusterSettings) -> Connect:
    dsn = cluster.maintenance.dsn
    if dsn is None:
        raise SettingsInvalid(f"cluster {cluster.name} has no maintenance.dsn")
    return connect_to(
        cluster.model_copy(update={"dsn": dsn, "service": None, "service_file": None})
    )


def _facts(connect: Connect, database: str) -> tuple[list[IndexFacts], list[StatisticsFacts]]:
    with closing(connect(database)) as connection, mapped_errors():
        if in_recovery(connection):
            raise MaintenanceOnStandby("the server of maintenance.dsn is a standby")
        names = databases(connection)
    found: list[IndexFacts] = []
    statistics: list[StatisticsFacts] = []
    for name in names:
        with closing(connect(name)) as connection, mapped_errors():
            found += indexes(connection)
            statistics += old_statistics(connection)
    return found, statistics


class _Pace:
    """Bytes a second, by what was done so far."""

    def __init__(self) -> None:
        self._bytes, self._seconds = 0, 0.0

    def expected(self, task: Task) -> timedelta:
        rate = self._bytes / self._seconds if self._seconds else FIRST_RATE
        return LEAST + timedelta(seconds=task.bytes / max(rate, 1.0))

    def learn(self, task: Task, seconds: float) -> None:
        if task.command is UpkeepCommand.REBUILD and task.bytes:
            self._bytes += task.bytes
            self._seconds += seconds


def _carry_out(
    services: Services, connect: Connect, tasks: list[Task], until: datetime
) -> MaintenanceOutcome:
    outcome, pace = MaintenanceOutcome(), _Pace()
    for task in tasks:
        room, expected = until - services.clocks.now(), pace.expected(task)
        if expected > room:
            problem = f"would take about {expected.total_seconds():.0f} s, too long for the window"
            outcome.left.append(TaskOutcome(task, problem=problem))
            continue
        began = services.clocks.monotonic()
        services.progress.phase(f"{task.command} {task.subject}")
        try:
            after = _execute(connect, task, room)
        except PgkeepError as error:
            outcome.failed.append(TaskOutcome(task, problem=f"{error.code}: {error.fact}"))
            _drop_leftover(connect, task)
            continue
        seconds = services.clocks.monotonic() - began
        pace.learn(task, seconds)
        outcome.done.append(TaskOutcome(task, round(seconds * 1000), after))
    return outcome


def _execute(connect: Connect, task: Task, room: timedelta) -> int | None:
    """Bytes of the index afterwards; None of what is no rebuilt index."""
    with closing(connect(task.subject.database)) as connection, mapped_errors():
        execute(connection, task.command, task.subject, room)
        if task.command is UpkeepCommand.REBUILD and isinstance(task.subject, IndexFacts):
            return size_of(connection, task.subject)
    return None


def _drop_leftover(connect: Connect, task: Task) -> None:
    """What the rebuild that has just failed left behind; if this fails, the next run drops it."""
    if task.command is not UpkeepCommand.REBUILD:
        return
    try:
        for leftover in _leftovers_of(connect, task):
            drop = Task(UpkeepCommand.DROP, leftover, "left over", 0, 0)
            _execute(connect, drop, LOCK_TIMEOUT)
    except PgkeepError as error:
        log_event("maintenance-leftover-kept", index=str(task.subject), code=error.code)


def _leftovers_of(connect: Connect, task: Task) -> Iterator[IndexFacts]:
    with closing(connect(task.subject.database)) as connection, mapped_errors():
        found = indexes(connection)
    if isinstance(task.subject, IndexFacts):
        stem = f"{task.subject.index}_cc"
        yield from (one for one in found if one.leftover and one.index.startswith(stem))
