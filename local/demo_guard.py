"""The demo's guard at work: a rule that would delete a parent is caught, and lifted again.

And what retention would delete in five weeks, shown and not done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from local.account_policies import lift_lifecycle_rule, plant_lifecycle_rule
from local.configuration import CLUSTER
from local.demo_watch import Stage, await_result
from local.pgkeep_verb import pgkeep

# What somebody might write to save money: full backups go after three days, and with them the
# parents of incrementals that are kept for seven.
RULE: Final = "save-money"
CODE: Final = "lifecycle-would-delete-parent"
_AFTER_DAYS: Final = 3
_FOUND_S: Final = 60.0
LATER: Final = timedelta(weeks=5)


@dataclass(frozen=True, slots=True)
class Caught:
    """The finding that the planted rule opened, and how long that and its end took."""

    fact: str
    action: str
    labels: str
    opened_after_s: float
    closed_after_s: float


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A dry run of retention `at` a later day: what would go, and what would stay."""

    at: datetime
    goes: tuple[str, ...]
    stays: int
    freed_bytes: int
    refused: str | None
    reasons: tuple[str, ...]


def catch_a_bad_rule(stage: Stage, policies: Path, clock: Callable[[], float]) -> Caught:
    """Plant the rule, wait for the finding, take the rule away, wait until that is gone."""
    planted = clock()
    with _planted(policies):
        found = await_result(stage, lambda: _open(stage), _FOUND_S, f"the finding {CODE}")
        opened = clock() - planted
    lifted = clock()
    await_result(stage, lambda: _open(stage) is None or None, _FOUND_S, f"the end of {CODE}")
    return Caught(
        fact=found["fact"],
        action=found["action"],
        labels=found["evidence"].get("labels", ""),
        opened_after_s=opened,
        closed_after_s=clock() - lifted,
    )


def rehearse_retention(config: Path) -> Rehearsal:
    """Nothing is deleted, now or then. Raises VerbFailed."""
    at = datetime.now(UTC) + LATER
    words = ("expire", CLUSTER, "--dry-run", "--at", at.isoformat())
    report = pgkeep(config, *words)
    return Rehearsal(
        at=at,
        goes=tuple(one["label"] for one in report["went"]),
        stays=report["staying_count"],
        freed_bytes=report["freed_bytes"],
        refused=report["refused"],
        reasons=tuple(sorted({reason for one in report["staying"] for reason in one["reasons"]})),
    )


@contextmanager
def _planted(policies: Path) -> Iterator[None]:
    plant_lifecycle_rule(policies, RULE, prefixes=["full/"], delete_after_days=_AFTER_DAYS)
    try:
        yield
    finally:
        lift_lifecycle_rule(policies, RULE)


def _open(stage: Stage) -> dict[str, Any] | None:
    path = f"/api/findings?cluster={CLUSTER}&code={CODE}"
    found = stage.ask("GET", path)["findings"]
    return found[0] if found else None
