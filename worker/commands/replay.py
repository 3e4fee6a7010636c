"""Replaying WAL into a restored directory with a private server, and serving the WAL ourselves.

The server is the contained one of a drill (worker.postgres.instance): nobody reaches it, nothing
of the source's configuration runs. What it asks for comes from threads of this process.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import InstanceNotStarted
from shared.event_log import log_event
from worker.commands.recovery import PlannedRecovery
from worker.commands.restore import PreparedRestore
from worker.commands.services import Services
from worker.commands.wal_server import FetchServer, FetchStatistics, serve_fetches
from worker.postgres.instance import Instance, running_instance, stop_cleanly
from worker.postgres.programs import Account, ControlData, Programs, read_control_data
from worker.postgres.replay_progress import (
    Followed,
    Outcome,
    ReplayPosition,
    WalNotRestored,
    follow_replay,
)
from worker.postgres.sandbox import DEFAULT_SIZING, Sizing
from worker.postgres.scratch import Scratch

# How often the log says how far the replay is.
_REPORT_S: Final = 5.0
# Each start anew follows a change of the source's limits, which is a rare and deliberate thing.
_STARTS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class ReplayPlace:
    """Where a restored cluster is opened, and as whom; `passage` is where WAL is handed over."""

    scratch: Scratch
    passage: Path
    programs: Programs
    account: Account | None
    superuser: str
    sizing: Sizing = DEFAULT_SIZING


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where a replay ended. `lsn` and `last_commit` are of what was replayed last; `bytes` counts
    from the start of the backup; `fetched` is None when nothing had to be.

    Seconds count from the last start of the server.
    """

    outcome: Outcome
    lsn: Lsn | None
    last_commit: datetime | None
    bytes: int
    fetched: FetchStatistics | None
    consistent_s: float
    ended_s: float


def socket_in(passage: Path) -> Path:
    """Where restore_command meets us."""
    return passage / "socket"


def started(place: ReplayPlace, control: ControlData) -> AbstractContextManager[Instance]:
    """A server on the restored directory, whose recovery goes on."""
    return running_instance(
        place.scratch,
        place.programs,
        control,
        account=place.account,
        superuser=place.superuser,
        sizing=place.sizing,
    )


@contextmanager
def replayed(
    services: Services, place: ReplayPlace, prepared: PreparedRestore
) -> Iterator[tuple[Instance, ControlData, Replayed]]:
    """A server that has reached its target: open, or shut down if that is what it was told.

    Raises what follow_replay and serve_fetches raise; and instead of WalNotRestored what kept the
    WAL from being read, unless another try may cure it.
    """
    patience = services.settings.drill.start_timeout_s
    with _serving(services, place, prepared.planned) as server:
        last_commit: datetime | None = None
        for _ in range(_STARTS_MAX):
            control = read_control_data(place.programs, place.scratch.data, account=place.account)
            with started(place, control) as instance:
                followed = _follow(services, prepared, instance, server)
                # A server that was started anew may have nothing left to replay.
                position = followed.position
                last_commit = (position.last_commit if position else None) or last_commit
                if followed.outcome is not Outcome.PAUSED:
                    yield instance, control, _summary(prepared, followed, last_commit, server)
                    return
                stop_cleanly(instance, timeout=patience)
                log_event("replay-restarted", cluster=prepared.request.cluster)
    raise InstanceNotStarted(f"recovery paused {_STARTS_MAX} times for want of larger settings")


@contextmanager
def _serving(
    services: Services, place: ReplayPlace, planned: PlannedRecovery | None
) -> Iterator[FetchServer | None]:
    """Nobody, when the backup carries all the WAL that is needed."""
    if planned is None:
        yield None
        return
    accounts = frozenset({place.account.uid}) if place.account else frozenset[int]()
    with serve_fetches(
        services,
        planned.backup.ref.cluster,
        socket=socket_in(place.passage),
        spool=place.passage / "spool",
        accounts=accounts,
        promised=planned.plan.segments,
        timeline=planned.plan.timeline,
    ) as server:
        yield server


def _follow(
    services: Services, prepared: PreparedRestore, instance: Instance, server: FetchServer | None
) -> Followed:
    try:
        return follow_replay(
            instance,
            patience_s=services.settings.drill.start_timeout_s,
            fetched=lambda: server.statistics().bytes if server else 0,
            seen=_reporting(services, prepared),
        )
    except WalNotRestored:
        cause = server.failure() if server else None
        if cause is None or cause.retryable:
            raise
        raise cause from None


def _summary(
    prepared: PreparedRestore,
    followed: Followed,
    last_commit: datetime | None,
    server: FetchServer | None,
) -> Replayed:
    position = followed.position
    return Replayed(
        outcome=followed.outcome,
        lsn=position.lsn if position else None,
        last_commit=last_commit,
        bytes=max(0, position.lsn - _start(prepared)) if position else 0,
        fetched=server.statistics() if server else None,
        consistent_s=followed.consistent_s or followed.ended_s,
        ended_s=followed.ended_s,
    )


def _start(prepared: PreparedRestore) -> Lsn:
    return prepared.backup.stored.document.start_lsn


def _reporting(services: Services, prepared: PreparedRestore) -> Callable[[ReplayPosition], None]:
    """Tells the progress port each position, and the log one every few seconds."""
    document, planned = prepared.backup.stored.document, prepared.planned
    start = document.start_lsn
    total = planned.plan.wal_bytes if planned else document.stop_lsn - start
    clock = services.clocks.monotonic
    began = logged = clock()

    def seen(position: ReplayPosition) -> None:
        nonlocal logged
        done = min(max(0, position.lsn - start), total)
        services.progress.advance(done, total)
        if clock() - logged < _REPORT_S:
            return
        logged = clock()
        rate = done / (logged - began)
        log_event(
            "replay-progress",
            cluster=document.cluster,
            lsn=position.lsn,
            last_commit=position.last_commit,
            mb_per_s=round(rate / 1e6, 1),
            seconds_left=round((total - done) / rate) if rate else None,
        )

    return seen
