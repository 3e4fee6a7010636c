"""`pgkeep restore … --recover`: restore, replay to the target, and stop with everything on disk.

    plan → keys → fetch and apply → replay → open

What is left is a data directory that the operator starts. When the replay fails, the directory
stays for a look, told to fetch its WAL from the agent: started by hand, it goes on from there.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shared.domain.drill import DrillPhase
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import RecoveryTargetInvalid, TargetAction
from shared.errors import InstanceNotStarted, PgkeepError, SettingsInvalid
from shared.event_log import log_event
from worker.commands.kept_logs import keep_logs, sweep_logs
from worker.commands.replay import Replayed, ReplayPlace, replayed, socket_in
from worker.commands.restore import (
    PreparedRestore,
    RestoreOutcome,
    RestoreRequest,
    apply_restore,
    outcome_of,
    prepare_restore,
)
from worker.commands.services import Services, Stopwatch
from worker.commands.source_facts import read_facts
from worker.commands.wal_server import restore_command
from worker.postgres.instance import stop_cleanly
from worker.postgres.programs import account_named, find_programs, read_control_data
from worker.postgres.recovery_settings import prepare_recovery, settle_recovered
from worker.postgres.replay_progress import Outcome
from worker.postgres.sandbox import Sizing
from worker.postgres.scratch import (
    Scratch,
    make_passage,
    make_scratch,
    remove_scratch,
    sweep_leftovers,
)

# Unlike a drill's copy, this one shall survive a power cut.
_DURABLE: Final = Sizing(fsync=True)
# The longest recovery that is believable; what is older was left by a process that died.
_LEFTOVER_AFTER: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class RecoveryOutcome:
    """A restore that was replayed. `timeline` is the one that the copy is on now."""

    restored: RestoreOutcome
    replayed: Replayed
    reached: Lsn
    timeline: int


def recover(services: Services, request: RestoreRequest) -> RecoveryOutcome:
    """Raises before writing whatever can be known before, and what a replay may raise."""
    if request.recovery.action is TargetAction.PAUSE:
        raise RecoveryTargetInvalid(
            "a recovery by pgkeep is over when the command ends, so it cannot pause",
            hint="Leave --recover out to look before you promote, or use --target-action shutdown.",
        )
    watch = Stopwatch(services.clocks.monotonic)
    prepared = prepare_restore(services, request, watch)
    with _place(services, prepared) as place:
        watch.lap(DrillPhase.PLAN)
        fetched = apply_restore(services, prepared, restore_command(socket_in(place.passage)))
        watch.lap(DrillPhase.FETCH_APPLY)
        services.progress.phase("replay")
        try:
            end, reached, timeline = _replay(services, prepared, place, watch)
        except PgkeepError as error:
            _leave_to_the_operator(services, prepared)
            state = f"{request.target} is kept; its recovery is not over"
            raise type(error)(f"{error.fact}; {state}", hint=error.advice) from None
    return RecoveryOutcome(outcome_of(prepared, fetched, watch), end, reached, timeline)


def _replay(
    services: Services, prepared: PreparedRestore, place: ReplayPlace, watch: Stopwatch
) -> tuple[Replayed, Lsn, int]:
    """How it ended, the position that it reached, and the timeline that the copy is on."""
    patience = services.settings.drill.start_timeout_s
    with replayed(services, place, prepared) as (instance, _, end):
        watch.lap(DrillPhase.REPLAY)
        services.progress.phase("open")
        if end.outcome is Outcome.OPEN and not stop_cleanly(instance, timeout=patience):
            raise InstanceNotStarted("the recovered cluster did not stop cleanly")
    control = read_control_data(place.programs, place.scratch.data, account=place.account)
    if end.outcome is Outcome.OPEN:
        settle_recovered(place.scratch.data)
    else:
        _leave_to_the_operator(services, prepared)
    watch.lap(DrillPhase.OPEN)
    # A server that shut down at its target may have been gone before it was asked.
    reached = max(end.lsn or Lsn(0), control.minimum_recovery_end)
    return end, reached, control.timeline


def _leave_to_the_operator(services: Services, prepared: PreparedRestore) -> None:
    """When the directory is started by hand, it asks the agent of this host for WAL."""
    command = restore_command(services.settings.wal.socket, prepared.request.cluster)
    prepare_recovery(prepared.request.target, prepared.recovery(command))


@contextmanager
def _place(services: Services, prepared: PreparedRestore) -> Iterator[ReplayPlace]:
    """Two private directories, swept by whoever comes later should we die."""
    request, drill = prepared.request, services.settings.drill
    account = account_named(request.owner)
    programs = find_programs(
        prepared.backup.stored.document.postgres.major, drill.program_directories
    )
    superuser = read_facts(prepared.backup).server.bootstrap_superuser
    try:
        drill.scratch.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"drill.scratch {drill.scratch}: {error.strerror}") from None
    # No cluster is called like this, so no drill takes a long recovery for a leftover of its own.
    label = f"recovery of {request.cluster}"
    token, now = services.random(4).hex(), services.clocks.now()
    sweep_leftovers(drill.scratch, label, older_than=now - _LEFTOVER_AFTER)
    sweep_logs(drill.scratch, now)
    made = make_scratch(drill.scratch, label, token=token, now=now, account=account)
    scratch = Scratch(made.directory, elsewhere=request.target)
    passage = drill.scratch / f"{token}-wal"
    try:
        make_passage(passage, label, now=now)
        yield ReplayPlace(scratch, passage, programs, account, superuser, _DURABLE)
    except PgkeepError:
        kept = keep_logs(scratch, drill.scratch, services.clocks.now())
        if kept is not None:
            log_event("recovery-log-kept", directory=str(kept))
        raise
    finally:
        shutil.rmtree(passage, ignore_errors=True)
        remove_scratch(scratch)
