"""The jobs that ticks of the schedule ask for."""

from datetime import UTC, datetime, timedelta

import pytest

from functions.scheduled_jobs import JobsToBe
from shared.catalogue.agenda_port import NewestBackups
from shared.domain.agenda import AgendaEntry
from shared.domain.cluster import cluster_name
from shared.domain.dispatch_plan import DueTick, Passed
from shared.domain.schedule import ScheduleKind, Tick
from shared.jobs.messages import DrillJob

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEMO = cluster_name("demo")
NEWEST, VERIFIED = "20261122T030000Z-F-aaaa", "20261115T030000Z-F-aaaa"


def job(kind: ScheduleKind, *, has_secondary: bool, verified: str | None) -> object:
    newest = {DEMO: NewestBackups(DEMO, NEWEST, "0" * 64, verified)}
    entry = AgendaEntry(DEMO, kind, "0 2 * * *", timedelta(), NOON)
    jobs = JobsToBe(NOON, {}, newest, has_secondary)
    return jobs.job(DueTick(entry, Tick(DEMO, kind, NOON)))


@pytest.mark.parametrize("has_secondary", [True, False])
def test_the_disaster_exercise_reads_the_secondary_where_there_is_one(
    *, has_secondary: bool
) -> None:
    made = job(ScheduleKind.DRILL_DISASTER, has_secondary=has_secondary, verified=VERIFIED)
    assert isinstance(made, DrillJob)
    assert made.from_secondary == has_secondary
    assert made.label == (None if has_secondary else VERIFIED)


def test_other_drills_read_the_primary() -> None:
    made = job(ScheduleKind.DRILL_SIMULATION, has_secondary=True, verified=VERIFIED)
    assert isinstance(made, DrillJob)
    assert (made.from_secondary, made.label) == (False, VERIFIED)
    unproven = job(ScheduleKind.DRILL_DISASTER, has_secondary=True, verified=None)
    assert unproven is Passed.NOTHING_THERE
