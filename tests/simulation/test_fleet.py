"""Fleets in virtual time: whatever goes wrong, the invariants hold, and what is broken is told.

A seed that fails is repeated with `pytest tests/simulation -k "fleet and [SEED]"`, or for longer
with `scripts/simulate --seed SEED`.
"""

from collections import Counter

import pytest

from shared.domain.finding_rules import FindingCode
from tests.simulation.app import Cadence
from tests.simulation.engine import hours
from tests.simulation.faults import Faults
from tests.simulation.simulation import DEFAULT_POLICY, Outcome, Plan, Simulation

# `expire` each other day costs half, and comes as often upon what it must not delete.
POLICY = {
    **DEFAULT_POLICY,
    "retention": {"full_days": 8, "incremental_days": 3, "wal_days": 8},
    "schedule": {"audit": False, "expire": "30 6 */2 * *"},
}
# What the injectors do; each must have happened in some of the seeds of a run.
INJECTED = (
    "a backup was damaged",
    "a backup was left half written",
    "a job failed",
    "a job failed once",
    "a lifecycle rule was planted",
    "a reply was lost",
    "a server was down",
    "a wal writer was down",
    "a worker died",
    "a worker froze",
    "an event came late",
    "an event came twice",
    "an event was lost",
    "catalogue was down",
    "expire died in the midst",
    "outage of the catalogue",
    "outage of the function app",
    "outage of the queues",
    "outage of the storage",
    "outage of the workers",
    "replication stalled",
    "the clock jumped back",
    "the clock jumped forward",
    "the clock of the workers' host was wrong",
    "the function app died in the midst",
    "wal was lost",
)


def simulate(seed: int, **changes: object) -> Outcome:
    plan: dict[str, object] = {"clusters": 3, "days": 30, "policy": POLICY, **changes}
    outcome = Simulation(Plan(seed, **plan)).run()  # type: ignore[arg-type]
    assert not outcome.broken, f"seed {seed}:\n" + "\n".join(outcome.broken)
    return outcome


def test_whatever_goes_wrong_every_promise_is_kept_or_a_finding_says_why_not(
    simulation_seed: int,
) -> None:
    outcome = simulate(simulation_seed)
    assert outcome.backups > 80
    assert sum(outcome.fired.values()) > 50


def test_every_injector_of_faults_strikes() -> None:
    """At rates at which a month suffices; the invariants hold at these as well."""
    faults = Faults(
        worker_dies=0.1, worker_freezes=0.05, job_fails_once=0.05, job_fails=0.02,
        backup_is_damaged=0.05, app_dies=0.01, reply_lost=0.01, outage_days=4, clock_jump_days=4,
        host_clock_days=5, wal_down_days=8, wal_lost_days=12, server_down_days=15,
        replication_days=5, lifecycle_days=5,
    )  # fmt: skip
    fired = simulate(7, faults=faults, days=45).fired
    assert [fault for fault in INJECTED if not fired[fault]] == []


def test_without_faults_nothing_is_ever_found() -> None:
    outcome = simulate(1, faults=Faults.none())
    assert outcome.fired == Counter()
    assert outcome.found == Counter()


def test_the_same_seed_does_the_same() -> None:
    first, second = (simulate(11, days=8) for _ in range(2))
    assert (first.steps, first.jobs, first.fired) == (second.steps, second.jobs, second.fired)


def test_minutes_without_anything_to_do_may_be_skipped() -> None:
    """Faults strike by the call, so there are none here: a call more would move them."""

    def history(*, every_minute: bool) -> list[tuple[object, ...]]:
        plan = Plan(3, 2, 9, Faults.none(), POLICY, every_minute=every_minute)
        simulation = Simulation(plan)
        assert simulation.run().broken == ()
        return sorted(
            (key, due, one.passed) for (key, due), one in simulation.world.catalogue.ticks.items()
        )

    assert history(every_minute=True) == history(every_minute=False)


@pytest.mark.slow
def test_a_larger_fleet_shares_its_hosts_and_its_account() -> None:
    outcome = simulate(5, clusters=200, days=5, cadence=Cadence(hours(12), hours(12)))
    assert outcome.backups > 200 * 5
    assert FindingCode.BACKUP_OVERDUE.value in outcome.found
