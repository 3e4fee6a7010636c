"""The rules over a fleet of hundreds; `scripts/simulate` has them over 10,000, for a year."""

from dataclasses import replace
from typing import Any

import pytest

from shared.domain.retention import RetentionPlan, plan_retention
from tests.simulation import rules_alone
from tests.simulation.rules_alone import RulesAlone, fleet_of


def test_the_rules_hold_for_a_fleet_and_months() -> None:
    outcome = RulesAlone(fleet_of(40), seed=1).run(100)
    assert outcome.broken == []
    assert outcome.ticks > 40 * 100 * 2
    assert outcome.jobs["failed"] > 0
    assert outcome.deleted > 40 * 70
    assert {"backup-overdue", "verification-overdue"} <= set(outcome.found)


def test_a_tick_that_is_served_twice_is_noticed() -> None:
    fleet = RulesAlone(fleet_of(2), seed=1)
    for _, _, entry in list(fleet.agenda):
        fleet.put(entry)
    assert any("D02" in sentence for sentence in fleet.run(3).broken)


def test_a_floor_that_goes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(*args: Any) -> RetentionPlan:
        return replace(plan_retention(*args), delete=tuple(args[0]))

    monkeypatch.setattr(rules_alone, "plan_retention", everything)
    assert any("I4" in one for one in RulesAlone(fleet_of(2), seed=1).run(5).broken)
