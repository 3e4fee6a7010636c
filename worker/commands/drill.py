"""`pgkeep drill`: prove a backup by restoring it into a throw-away instance and looking hard at it.

    plan → keys → fetch and apply → recovery → replay → open → checks → signed report

A drill of a backup alone ends where the backup ends. One with a target goes on to that instant, by
WAL from the archive, and tells what a disaster at that instant would have cost.

What the copy shows is a finding, good or bad, and makes a report. What keeps the drill from
looking (no room, no programs) makes it inconclusive. Only what another try may cure is raised.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from shared.domain.cluster import cluster_name
from shared.domain.drill import CheckOutcome, DrillPhase, DrillVerdict, drill_verdict
from shared.domain.drill_target import DrillLevel, parse_drill_target
from shared.errors import (
    Corrupt,
    InstanceLacksLibrary,
    InstanceNotStarted,
    InstanceStarved,
    InstanceTimeout,
    Refused,
    SettingsInvalid,
    Unavailable,
)
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import find_backup, read_backup
from shared.repository.documents import DrillReport
from shared.settings import ClusterSettings
from worker.commands.cluster_identity import signer_of
from worker.commands.drill_checks import CopyUnderTest, run_checks
from worker.commands.drill_instant import Instant, plan_instant
from worker.commands.drill_report import Findings, compose_report
from worker.commands.kept_logs import keep_logs, sweep_logs
from worker.commands.recorded_outcomes import record_drill
from worker.commands.replay import ReplayPlace, socket_in
from worker.commands.restore import (
    Chosen,
    PreparedRestore,
    RestoreRequest,
    apply_restore,
    prepare_restore,
)
from worker.commands.secondary import from_secondary
from worker.commands.services import Services, Stopwatch
from worker.commands.signed_reports import known_report, store_report
from worker.commands.source_facts import read_facts
from worker.commands.wal_server import restore_command
from worker.pipeline.file_writer import DiskFull
from worker.postgres.programs import Account, account_named, find_programs
from worker.postgres.replay_progress import WalNotRestored
from worker.postgres.scratch import (
    Scratch,
    make_passage,
    make_scratch,
    remove_scratch,
    sweep_leftovers,
)

# No drill takes a day; what is older was left by a worker that died.
_LEFTOVER_AFTER = timedelta(days=1)
# What stands between us and the copy, without saying anything about the backup.
_IN_THE_WAY = (Refused, InstanceLacksLibrary, InstanceStarved, InstanceTimeout, DiskFull)


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """`label` None means the newest backup; `drill_id` makes the drill idempotent. `target` reads
    as parse_drill_target has it; None is the end of the backup. `level` is the duty that it
    fulfils, and only reported. `from_secondary`: the copy in the second region is drilled.
    """

    label: str | None = None
    drill_id: str | None = None
    target: str | None = None
    level: DrillLevel | None = None
    from_secondary: bool = False


@dataclass(frozen=True, slots=True)
class _Room:
    """The directories of one drill, and the account of its server."""

    scratch: Scratch
    passage: Path
    account: Account | None


def drill(services: Services, cluster: ClusterSettings, request: DrillRequest) -> DrillReport:
    """Run one drill and store its signed report.

    Raises BackupNotFound, what reading the backup's document or keys raises, and Unavailable
    when the storage does not answer: these say nothing about the backup.
    """
    if request.from_secondary:
        services = from_secondary(services)
    drill_id = request.drill_id or str(uuid4())
    name = layout.drill_report(cluster_name(cluster.name), drill_id)
    known = known_report(services, name, DrillReport)
    if known is not None:
        return known
    signer_of(services)  # no drill without a report
    target = None if request.target is None else parse_drill_target(request.target)
    watch = Stopwatch(services.clocks.monotonic)
    ref = find_backup(services.store, cluster_name(cluster.name), request.label)
    stored = read_backup(services.store, ref, services.pinned)
    findings = Findings(Instant(stored), request.target, services.clocks.now(), request.level)
    with _scratch(services, cluster, findings) as room:
        try:
            findings.instant = plan_instant(
                services, stored, target, named=request.label is not None, drill_id=drill_id
            )
            _rehearse(services, cluster, room, watch, findings)
        except InstanceNotStarted as error:
            lacking = isinstance(error, InstanceLacksLibrary)
            outcome = CheckOutcome.INCONCLUSIVE if lacking else CheckOutcome.FAILED
            findings.stopped_by(error, outcome)
        except _IN_THE_WAY as error:
            findings.stopped_by(error, CheckOutcome.INCONCLUSIVE)
        except Corrupt as error:
            findings.stopped_by(error, CheckOutcome.FAILED)
    report = compose_report(services, drill_id, watch, findings)
    log_event(
        "drill-reported",
        cluster=report.cluster,
        drill_id=drill_id,
        label=report.label,
        verdict=report.verdict,
    )
    report = store_report(services, name, report)
    record_drill(services.telemetry, report)
    return report


def _rehearse(
    services: Services,
    cluster: ClusterSettings,
    room: _Room,
    watch: Stopwatch,
    findings: Findings,
) -> None:
    document = findings.instant.stored.document
    programs = find_programs(document.postgres.major, services.settings.drill.program_directories)
    findings.postgres = programs.version
    prepared = _prepared(services, room, watch, findings)
    findings.chain = prepared.plan.chain
    apply_restore(services, prepared, restore_command(socket_in(room.passage)))
    watch.lap(DrillPhase.FETCH_APPLY)
    findings.restored_bytes = prepared.plan.file_bytes
    findings.restored_files = len(prepared.plan.files)
    facts = read_facts(prepared.backup)
    watch.lap(DrillPhase.PLAN)
    superuser = facts.server.bootstrap_superuser
    place = ReplayPlace(room.scratch, room.passage, programs, room.account, superuser)
    try:
        run_checks(services, CopyUnderTest(place, prepared, facts, cluster), watch, findings)
    except WalNotRestored:
        raise
    except Unavailable as error:
        # The copy does not answer, not the storage: trying again would restore it all again.
        findings.stopped_by(error, CheckOutcome.INCONCLUSIVE)


def _prepared(
    services: Services, room: _Room, watch: Stopwatch, findings: Findings
) -> PreparedRestore:
    instant = findings.instant
    request = RestoreRequest(
        cluster=instant.stored.ref.cluster,
        label=instant.stored.document.label,
        target=room.scratch.data,
        tablespaces_below=room.scratch.tablespaces,
        owner=room.account.name if room.account else None,
        sync=False,
    )
    return prepare_restore(services, request, watch, Chosen(instant.stored, instant.planned))


@contextmanager
def _scratch(services: Services, cluster: ClusterSettings, findings: Findings) -> Iterator[_Room]:
    """Directories of this drill's own, swept afterwards; logs of a failed drill are kept."""
    root, now = services.settings.drill.scratch, services.clocks.now()
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"drill.scratch {root}: {error.strerror}") from None
    swept = sweep_leftovers(root, cluster.name, older_than=now - _LEFTOVER_AFTER)
    if swept:
        log_event("drill-swept", cluster=cluster.name, directories=len(swept))
    sweep_logs(root, now)
    account = account_named(services.settings.drill.run_as)
    token = services.random(4).hex()
    scratch = make_scratch(root, cluster.name, token=token, now=now, account=account)
    passage = root / f"{token}-wal"
    try:
        make_passage(passage, cluster.name, now=now)
        yield _Room(scratch, passage, account)
    finally:
        if drill_verdict(findings.checks) is not DrillVerdict.PROVEN:
            kept = keep_logs(scratch, root, services.clocks.now())
            if kept is not None:
                log_event("drill-logs-kept", directory=str(kept))
        shutil.rmtree(passage, ignore_errors=True)
        remove_scratch(scratch)
