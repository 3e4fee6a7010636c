"""`pgkeep drill`: prove a backup by restoring it into a throw-away instance and looking hard at it.

    plan → keys → fetch and apply → recovery → open → checks → signed report

What the copy shows is a finding, good or bad, and makes a report. What keeps the drill from
looking (no room, no programs) makes it inconclusive. Only what another try may cure is raised.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from shared.domain.cluster import cluster_name
from shared.domain.drill import (
    Check,
    CheckOutcome,
    DrillPhase,
    DrillVerdict,
    TableVerdict,
    drill_verdict,
)
from shared.errors import (
    Corrupt,
    InstanceLacksLibrary,
    InstanceNotStarted,
    InstanceStarved,
    InstanceTimeout,
    PgkeepError,
    Refused,
    SettingsInvalid,
    Unavailable,
)
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import StoredBackup, find_backup, read_backup
from shared.repository.documents import DrillReport
from shared.settings import ClusterSettings
from shared.version import VERSION
from worker.commands.cluster_identity import signer_of
from worker.commands.drill_checks import CopyUnderTest, read_facts, run_checks
from worker.commands.restore import (
    PreparedRestore,
    RestoreRequest,
    apply_restore,
    prepare_restore,
)
from worker.commands.services import Services, Stopwatch
from worker.commands.signed_reports import known_report, store_report
from worker.pipeline.file_writer import DiskFull
from worker.postgres.programs import Account, account_named, find_programs, read_control_data
from worker.postgres.scratch import Scratch, make_scratch, remove_scratch, sweep_leftovers

# No drill takes a day; what is older was left by a worker that died.
_LEFTOVER_AFTER = timedelta(days=1)
# What stands between us and the copy, without saying anything about the backup.
_IN_THE_WAY = (Refused, InstanceLacksLibrary, InstanceStarved, InstanceTimeout, DiskFull)


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """`label` None means the newest backup; `drill_id` makes the drill idempotent."""

    label: str | None = None
    drill_id: str | None = None


@dataclass(slots=True)
class _Findings:
    """What the drill saw so far; a report can be made of it at any time."""

    checks: list[Check] = field(default_factory=list)
    tables: tuple[TableVerdict, ...] = ()
    reason: str = ""
    restored_bytes: int = 0
    restored_files: int = 0
    postgres: str = ""

    def stopped_by(self, error: PgkeepError, outcome: CheckOutcome) -> None:
        self.reason = str(error)
        name = "restore" if not self.checks else "checks"
        self.checks.append(Check(name, outcome, error.fact, 0.0))


def drill(services: Services, cluster: ClusterSettings, request: DrillRequest) -> DrillReport:
    """Run one drill and store its signed report.

    Raises BackupNotFound, what reading the backup's document or keys raises, and Unavailable
    when the storage does not answer: these say nothing about the backup.
    """
    drill_id = request.drill_id or str(uuid4())
    name = layout.drill_report(cluster_name(cluster.name), drill_id)
    known = known_report(services, name, DrillReport)
    if known is not None:
        return known
    signer_of(services)  # no drill without a report
    watch, findings = Stopwatch(services.clocks.monotonic), _Findings()
    ref = find_backup(services.store, cluster_name(cluster.name), request.label)
    stored = read_backup(services.store, ref, services.pinned)
    with _scratch(services, cluster, findings) as (scratch, account):
        try:
            _rehearse(services, cluster, stored, scratch, account, watch, findings)
        except InstanceNotStarted as error:
            lacking = isinstance(error, InstanceLacksLibrary)
            outcome = CheckOutcome.INCONCLUSIVE if lacking else CheckOutcome.FAILED
            findings.stopped_by(error, outcome)
        except _IN_THE_WAY as error:
            findings.stopped_by(error, CheckOutcome.INCONCLUSIVE)
        except Corrupt as error:
            findings.stopped_by(error, CheckOutcome.FAILED)
    report = _report(services, stored, drill_id, watch, findings)
    log_event("drill-reported", drill_id=drill_id, label=ref.label, verdict=report.verdict)
    return store_report(services, name, report)


def _rehearse(
    services: Services,
    cluster: ClusterSettings,
    stored: StoredBackup,
    scratch: Scratch,
    account: Account | None,
    watch: Stopwatch,
    findings: _Findings,
) -> None:
    drill_settings = services.settings.drill
    programs = find_programs(stored.document.postgres.major, drill_settings.program_directories)
    findings.postgres = programs.version
    prepared = prepare_restore(
        services,
        RestoreRequest(
            cluster=stored.ref.cluster,
            label=stored.document.label,
            target=scratch.data,
            tablespaces_below=scratch.tablespaces,
            owner=account.name if account else None,
            sync=False,
        ),
        watch,
    )
    apply_restore(services, prepared)
    watch.lap(DrillPhase.FETCH_APPLY)
    _count(prepared, findings)
    control = read_control_data(programs, scratch.data, account=account)
    facts = read_facts(prepared.backup)
    watch.lap(DrillPhase.PLAN)
    copy = CopyUnderTest(scratch, programs, control, account, facts, cluster)
    try:
        findings.tables = run_checks(services, copy, watch, findings.checks)
    except Unavailable as error:
        # The copy does not answer, not the storage: trying again would restore it all again.
        findings.stopped_by(error, CheckOutcome.INCONCLUSIVE)


def _count(prepared: PreparedRestore, findings: _Findings) -> None:
    findings.restored_bytes = prepared.plan.file_bytes
    findings.restored_files = len(prepared.plan.files)


@contextmanager
def _scratch(
    services: Services, cluster: ClusterSettings, findings: _Findings
) -> Iterator[tuple[Scratch, Account | None]]:
    """A directory of this drill's own, swept afterwards; logs of a failed drill are kept."""
    root, now = services.settings.drill.scratch, services.clocks.now()
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"drill.scratch {root}: {error.strerror}") from None
    swept = sweep_leftovers(root, cluster.name, older_than=now - _LEFTOVER_AFTER)
    if swept:
        log_event("drill-swept", cluster=cluster.name, directories=len(swept))
    account = account_named(services.settings.drill.run_as)
    token = services.random(4).hex()
    scratch = make_scratch(root, cluster.name, token=token, now=now, account=account)
    try:
        yield scratch, account
    finally:
        if drill_verdict(findings.checks) is not DrillVerdict.PROVEN:
            _keep_logs(scratch, root / f"{token}-logs")
        remove_scratch(scratch)


def _keep_logs(scratch: Scratch, place: Path) -> None:
    logs = list(scratch.directory.glob("*.log"))
    if not logs:
        return
    place.mkdir(mode=0o700)
    for log in logs:
        shutil.copyfile(log, place / log.name)
    log_event("drill-logs-kept", directory=str(place))


def _report(
    services: Services,
    stored: StoredBackup,
    drill_id: str,
    watch: Stopwatch,
    findings: _Findings,
) -> DrillReport:
    verdict = drill_verdict(findings.checks)
    phases = {phase.value: watch.phases.get(phase, 0) for phase in DrillPhase}
    return DrillReport(
        id=drill_id,
        cluster=stored.document.cluster,
        label=stored.document.label,
        document_digest=stored.digest,
        created_at=services.clocks.now(),
        verdict=verdict,
        reason=findings.reason or _reason(findings.checks),
        phases_ms=phases,
        # The time until somebody could work again: checks are for us, not for them.
        rto_ms=sum(ms for phase, ms in phases.items() if phase != DrillPhase.CHECKS),
        restored_bytes=findings.restored_bytes,
        restored_files=findings.restored_files,
        postgres=findings.postgres,
        checks=tuple(findings.checks),
        tables=findings.tables,
        tool=f"pgkeep {VERSION}",
    )


def _reason(checks: list[Check]) -> str:
    bad = [
        f"{check.name}: {check.detail}"
        for check in checks
        if check.outcome in {CheckOutcome.FAILED, CheckOutcome.INCONCLUSIVE}
    ]
    passed = sum(check.outcome is CheckOutcome.PASSED for check in checks)
    return "; ".join(bad) or f"{passed} checks passed"
