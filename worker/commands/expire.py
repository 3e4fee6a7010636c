"""`pgkeep expire`: delete what retention no longer wants, as far as that is safe.

    lease → survey → plan → survey again → same plan? → tombstone, document, parts → WAL → report

The plan follows from the repository alone: signed documents, signed reports, names and sizes. No
private key for data is needed. Backup and expiry exclude one another by the cluster's lease.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from shared.domain.cluster import ClusterName, cluster_name
from shared.errors import Conflict, Refused
from shared.event_log import log_event
from shared.jobs.lease import Lease, hold
from shared.repository import layout
from shared.repository.expiry_documents import ExpiryReport
from shared.settings import ClusterSettings
from worker.commands.cluster_identity import signer_of
from worker.commands.committed_backups import holder
from worker.commands.expiry_deletion import Pretence, RealRemover, carry_out
from worker.commands.expiry_report import compose_report, dead_runs, report_of_dead_run
from worker.commands.expiry_survey import Survey, survey
from worker.commands.services import Services
from worker.commands.signed_reports import known_report, store_report

_NO_RUN: Final = UUID(int=0)


# Ages are told by our clock, and a wrong one makes everything old at once. Requests to the storage
# may be repeated for about a minute before they succeed.
_SKEW: Final = timedelta(minutes=5)


class ClockDiffers(Refused):
    """This host's clock and the storage's are far apart: nobody knows how old backups are."""

    code = "clock-differs"
    hint = "Nothing was deleted: set the clock of this host by NTP, then run it again."


class PlanChanged(Conflict):
    """What would be deleted is not what was to be deleted a moment ago."""

    code = "plan-changed"
    hint = "Nothing was deleted: look at `pgkeep expire --dry-run`, then run it again."


@dataclass(frozen=True, slots=True)
class ExpireRequest:
    """`run_id` makes a run of the queue idempotent. `plan` is the digest of a dry run's plan:
    that is carried out, or nothing.
    """

    run_id: UUID | None = None
    dry_run: bool = False
    plan: str | None = None


@dataclass(frozen=True, slots=True)
class ExpireOutcome:
    """Of a dry run, the report says what would have been done."""

    id: str
    report: ExpiryReport
    dry_run: bool


def expire(services: Services, cluster: ClusterSettings, request: ExpireRequest) -> ExpireOutcome:
    """Plan, and unless it is a dry run, delete and store a signed report.

    A run that is refused is a run: its report says why nothing was deleted. Raises LeaseHeld while
    a backup is taken, ClockDiffers, PlanChanged, SignerMissing, and what the store raises. After
    any of them the next run completes what this one has begun.
    """
    name = cluster_name(cluster.name)
    if request.dry_run:
        return ExpireOutcome(str(_NO_RUN), _rehearse(services, name, cluster), dry_run=True)
    run = request.run_id or UUID(bytes=services.random(16), version=4)
    signer_of(services)
    lock = layout.lock(name, "backup").path
    ttl = services.settings.worker.lease_seconds
    with hold(services.leases, lock, holder(services, request.run_id), ttl_s=ttl) as lease:
        _require_clock(lease.lease, services.clocks.now())
        known = known_report(services, layout.expiry_report(name, str(run)), ExpiryReport)
        if known is None:
            found = _settled(services, name, cluster, request.plan)
            dead = dead_runs(services, found)
            for other in (one for one in dead if one.run != run):
                _store(services, report_of_dead_run(found, other))
            remover = RealRemover(services, signer_of(services), found, run, lease)
            done = carry_out(services, found, remover)
            known = _store(services, compose_report(found, done, run, dead))
    return ExpireOutcome(str(run), known, dry_run=False)


def _require_clock(lease: Lease, now: datetime) -> None:
    """The lease was granted just now, by the storage's clock where the storage has one."""
    if abs(now - lease.acquired_at) > _SKEW:
        raise ClockDiffers(
            f"it is {now:%F %TZ} here, and {lease.acquired_at:%F %TZ} in the storage"
        )


def _rehearse(services: Services, name: ClusterName, cluster: ClusterSettings) -> ExpiryReport:
    """Reads only; a backup may be running meanwhile, whose parts are too young to be litter."""
    found = survey(services, name, cluster.retention, services.clocks.now())
    done = carry_out(services, found, Pretence())
    return compose_report(found, done, _NO_RUN, dead_runs(services, found))


def _store(services: Services, report: ExpiryReport) -> ExpiryReport:
    name = layout.expiry_report(ClusterName(report.cluster), str(report.id))
    return store_report(services, name, report)


def _settled(
    services: Services, name: ClusterName, cluster: ClusterSettings, wanted: str | None
) -> Survey:
    """The repository twice, with one result: who deletes does not go by a single look."""
    at = services.clocks.now()
    services.progress.phase("expire")
    first = survey(services, name, cluster.retention, at)
    _require_same("the dry run", wanted or first.plan.digest, first)
    second = survey(services, name, cluster.retention, at)
    _require_same("the first look", first.plan.digest, second)
    plan = second.plan
    log_event(
        "expire-planned",
        cluster=name,
        plan=plan.digest,
        delete=[item.label for item in plan.delete],
        postponed=plan.postponed,
        refused=plan.refused,
        settles=second.policy != second.asked,
    )
    return second


def _require_same(whose: str, digest: str, found: Survey) -> None:
    if found.plan.digest != digest:
        raise PlanChanged(f"the plan is {found.plan.digest}, that of {whose} was {digest}")
