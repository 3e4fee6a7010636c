"""Each minute: what is due? Each due tick becomes one job, however many of us run.

Only what is due is read: the catalogue keeps the agenda, which follows the settings.
"""

import hashlib
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import Final

import azure.functions as func

from functions.guarded_expiry import awaited_restores, dangers, tell_refused
from functions.job_watch import recover_lost
from functions.looks import look
from functions.outbox import send_requested
from functions.scheduled_jobs import JobsToBe
from functions.wiring import Services, services
from shared.catalogue.agenda_port import ServedTick
from shared.domain.agenda import AgendaEntry, Wish, follow, wishes_of
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.dispatch_plan import DueTick, Limits, Passed, plan_dispatch
from shared.domain.schedule import ScheduleKind
from shared.event_log import log_event
from shared.settings import Settings

# Of each kind: far more than any account lets run; the rest comes with the next tick.
_AT_ONCE: Final = 20_000
# Once is no harm; when it goes on, somebody is told.
_SKIPPED: Final = frozenset({Passed.STILL_RUNNING, Passed.BEING_READ})

blueprint = func.Blueprint()


# No monitor: missed ticks are found in the catalogue, not in the host's status blob.
@blueprint.timer_trigger("timer", schedule="%PGKEEP_DISPATCH_SCHEDULE%", use_monitor=False)
def timer_dispatch(timer: func.TimerRequest) -> None:
    found = services()
    with look(found, "dispatch"):
        dispatch(found)


def dispatch(services: Services) -> None:
    """Serve each due tick once, then send what was requested, now or before a crash."""
    recover_lost(services)
    follow_settings(services)
    serve_due(services)
    send_requested(services)


def wishes(settings: Settings) -> Iterator[Wish]:
    """What the settings want, of every cluster and kind."""
    spread = timedelta(minutes=settings.fleet.spread_minutes)
    for cluster in settings.cluster:
        off = {ScheduleKind.MAINTENANCE.value} if cluster.maintenance.dsn is None else set()
        crons = {
            ScheduleKind(kind): cron for kind, cron in cluster.schedule if cron and kind not in off
        }
        yield from wishes_of(cluster_name(cluster.name), crons, spread)


def schedules_digest(settings: Settings) -> str:
    """Equal as long as the wishes are."""
    lines = sorted(
        f"{cluster.name} {tuple(cluster.schedule)} {cluster.maintenance.dsn is None}"
        for cluster in settings.cluster
    )
    text = "\n".join([str(settings.fleet.spread_minutes), *lines])
    return hashlib.sha256(text.encode()).hexdigest()


def follow_settings(services: Services) -> None:
    """Costs a comparison as long as the schedules stay as they are."""
    digest = schedules_digest(services.settings)
    if services.catalogue.agenda_digest() == digest:
        return
    wanted = wishes(services.settings)
    known = {entry.key: entry for entry in services.catalogue.agenda()}
    changes = follow(wanted, known, services.clock())
    services.catalogue.change_agenda(changes, digest)
    log_event("agenda-changed", put=len(changes.put), removed=len(changes.remove))


def serve_due(services: Services) -> None:
    now = services.clock()
    entries = _known(services, services.catalogue.due_entries(now, _AT_ONCE))
    if not entries:
        return
    ticks = [(entry, entry.tick_at(now)) for entry in entries]
    due = [DueTick(entry, tick) for entry, tick in ticks if tick is not None]
    guarded = dangers(services) if _expires(due) else {}
    awaited = awaited_restores(services) if _expires(due) else ()
    active, limits = services.catalogue.active_jobs(), _limits(services.settings)
    plan = plan_dispatch(due, active, limits, guarded=guarded, awaited=awaited)
    to_be = JobsToBe.of(services, plan.start, now)
    served = [
        *(_moved_on(entry, now) for entry, tick in ticks if tick is None),
        *(_passed(one, reason) for one, reason in plan.passed),
        *(_started(one, to_be) for one in plan.start),
    ]
    done = services.catalogue.serve(served, now)
    _tell(served, done, len(plan.waiting))
    refused = [one.tick.cluster for one, reason in plan.passed if reason is Passed.GUARDED]
    tell_refused(services, refused, guarded)


def _known(services: Services, entries: Collection[AgendaEntry]) -> list[AgendaEntry]:
    """While a release is brought in, another instance's settings may name what ours do not."""
    names = {cluster.name for cluster in services.settings.cluster} if entries else set()
    return [entry for entry in entries if entry.cluster in names]


def _moved_on(entry: AgendaEntry, now: datetime) -> ServedTick:
    return ServedTick(entry, entry.once_more(now))


def _passed(one: DueTick, reason: Passed) -> ServedTick:
    after = one.entry.after(one.tick, skipped=reason in _SKIPPED)
    return ServedTick(one.entry, after, one.tick, passed=reason.value)


def _started(one: DueTick, to_be: JobsToBe) -> ServedTick:
    made = to_be.job(one)
    if isinstance(made, Passed):
        return _passed(one, made)
    return ServedTick(one.entry, one.entry.after(one.tick), one.tick, job=made)


def _expires(due: Collection[DueTick]) -> bool:
    return any(one.tick.kind is ScheduleKind.EXPIRE for one in due)


def _limits(settings: Settings) -> Limits:
    by_name = {cluster.name: cluster for cluster in settings.cluster}

    @cache
    def place_of(cluster: ClusterName) -> str:
        known = by_name.get(cluster)
        return cluster if known is None else known.place

    return Limits(settings.fleet.per_host, settings.fleet.per_account, place_of)


def _tell(served: Collection[ServedTick], done: Collection[object], waiting: int) -> None:
    for one in served:
        if one.tick is None or one.before.key not in done:
            continue
        tick = one.tick
        if one.job is not None:
            log_event(
                "job-due", cluster=tick.cluster, kind=tick.kind, due=tick.due, late=tick.late,
                job_id=one.job.job_id,
            )  # fmt: skip
        else:
            log_event(
                "tick-passed", cluster=tick.cluster, kind=tick.kind, due=tick.due,
                reason=one.passed,
            )  # fmt: skip
    if waiting:
        log_event("ticks-waiting", count=waiting)
