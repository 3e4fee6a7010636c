"""The simulation finds what it is there to find: each bug planted here breaks an invariant.

Were one of these green, the invariant that should have seen it would be worth nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from functions import expiry_intake, freshness_watch, intake, timer_dispatch, timer_reconcile
from functions.wiring import Services
from shared.domain import agenda
from shared.domain.retention import RetentionPlan, plan_retention
from shared.domain.schedule import next_tick
from shared.jobs.messages import BackupJob
from tests.simulation.faults import Faults
from tests.simulation.simulation import Plan, Simulation
from tests.simulation.test_fleet import POLICY
from tests.simulation.workers import Run
from worker.commands import expiry_survey

Plant = Callable[[pytest.MonkeyPatch], None]
MUCH_TROUBLE = Faults(
    worker_freezes=0.15, event_lost=0.1, app_dies=0, reply_lost=0, outage_days=0,
    clock_jump_days=0, host_clock_days=0, server_down_days=8, lifecycle_days=1,
)  # fmt: skip
PLAN = Plan(2, 3, 14, MUCH_TROUBLE, POLICY)


def test_without_a_bug_the_same_world_is_in_order() -> None:
    assert Simulation(PLAN).run().broken == ()


def a_tick_is_served_twice(patch: pytest.MonkeyPatch) -> None:
    serve_due = timer_dispatch.serve_due

    def twice(services: Services) -> None:
        serve_due(services)
        for job in services.catalogue.jobs(limit=3):
            if isinstance(job.request, BackupJob) and job.sent_at is None and not job.retry_of:
                again = job.request.model_copy(update={"job_id": services.new_id()})
                services.catalogue.request(again, services.clock())

    patch.setattr(timer_dispatch, "serve_due", twice)


def each_other_tick_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    def after_next(cron: str, after: datetime) -> datetime:
        return next_tick(cron, next_tick(cron, after))

    patch.setattr(agenda, "next_tick", after_next)


def expiry_ignores_the_floor(patch: pytest.MonkeyPatch) -> None:
    def all_that_is_old(*args: Any, **kwargs: Any) -> RetentionPlan:
        plan = plan_retention(*args, **kwargs)
        known = [verdict.backup for verdict in plan.verdicts]
        old = [item for item in known if item.at < args[2] - timedelta(days=3)]
        floor = known[-1].label if known else None
        return replace(plan, delete=tuple(old), floor=floor, refused=None)

    patch.setattr(expiry_survey, "plan_retention", all_that_is_old)


def documents_are_not_taken_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intake, "_record_backup", lambda *_: None)


def expired_backups_stay_in_the_catalogue(patch: pytest.MonkeyPatch) -> None:
    class Unforgetful:
        """A catalogue that forgets nothing."""

        def __init__(self, services: Services) -> None:
            self._catalogue = services.catalogue

        def __getattr__(self, name: str) -> Any:
            return (lambda _: None) if name == "forget" else getattr(self._catalogue, name)

    record = expiry_intake.record_expiry

    def keep(services: Services, *report: Any) -> None:
        catalogue: Any = Unforgetful(services)
        record(replace(services, catalogue=catalogue), *report)

    patch.setattr(intake, "record_expiry", keep)


def old_backups_are_no_finding(patch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> Sequence[object]:
        return ()

    patch.setattr(freshness_watch, "backup_findings", nothing)


def silent_workers_are_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(timer_dispatch, "recover_lost", lambda _: None)


def nobody_guards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(timer_reconcile, "watch_guard", lambda _: None)
    patch.setattr(intake, "guard_backup", lambda *_: None)


def workers_commit_without_their_lease(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Run, "check", lambda _: None)


@pytest.mark.parametrize(
    ("plant", "broken"),
    [
        (a_tick_is_served_twice, "D02 the tick"),
        (each_other_tick_is_forgotten, "S c0"),
        (expiry_ignores_the_floor, "I4 c0"),
        (documents_are_not_taken_in, "I5 full/"),
        (expired_backups_stay_in_the_catalogue, "no longer in the repository"),
        (old_backups_are_no_finding, "no finding says backup-overdue"),
        (silent_workers_are_waited_for, "I9 "),
        (nobody_guards, "P a lifecycle rule would delete"),
        (workers_commit_without_their_lease, "I8 "),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, plant: Plant, broken: str) -> None:
    plant(monkeypatch)
    found = Simulation(PLAN).run().broken
    assert any(broken in sentence for sentence in found), found


def test_a_password_in_a_message_is_found() -> None:
    simulation = Simulation(Plan(2, 1, 1))
    dsn = simulation.world.settings.cluster[0].dsn
    assert dsn is not None
    simulation.bells["pgkeep-backup"].send(dsn.get_secret_value())
    assert simulation.invariants.broken[0].endswith("I7 a message holds a password")
