"""How long a full recovery would take now, by what drills measured.

A drill's time is split in three: what grows with the bytes restored, what grows with the bytes
replayed, and the rest, which is the same for every size. For each of the two rates the median of
the newest drills counts, so that one odd drill does not decide; the spread is what the slowest and
the fastest of them would give. Drills that moved too little to show a rate count as they were
measured. The time of checks is none of the recovery's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from shared.domain.drill import DrillPhase
from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding

# Older ones ran on another host, or on another size of everything.
DRILLS_CONSIDERED: Final = 5
_REST: Final = (DrillPhase.PLAN, DrillPhase.KEYS, DrillPhase.OPEN)


@dataclass(frozen=True, slots=True)
class DrillTimes:
    """What a drill measured; `phases` in milliseconds by the names of DrillPhase."""

    at: datetime
    restored_bytes: int
    replayed_bytes: int
    phases: dict[str, int]
    rto_ms: int


@dataclass(frozen=True, slots=True)
class _Work:
    """Phases that take the longer, the more bytes they move.

    Fewer than `least` show no rate: starting a server takes its time, too. Then each byte counts
    with `assumed` seconds.
    """

    phases: tuple[DrillPhase, ...]
    size: Callable[[DrillTimes], int]
    least: int
    assumed: float

    def seconds(self, drills: Sequence[DrillTimes], size: int, choose: "_Choose") -> float:
        costs = [
            _seconds(drill, self.phases) / self.size(drill)
            for drill in drills
            if self.size(drill) >= self.least
        ]
        if costs:
            return choose(costs) * size
        return choose([_seconds(drill, self.phases) for drill in drills]) + self.assumed * size


_Choose = Callable[[Sequence[float]], float]
_RESTORING: Final = _Work(
    (DrillPhase.FETCH_APPLY,), lambda drill: drill.restored_bytes, 1 << 20, 0.0
)
# Four segments; and the rate that worker.commands.recovery_rates assumes as well.
_REPLAYING: Final = _Work(
    (DrillPhase.RECOVERY, DrillPhase.REPLAY), lambda drill: drill.replayed_bytes, 64 << 20, 1 / 50e6
)


@dataclass(frozen=True, slots=True)
class RtoPrediction:
    """Seconds; `fastest` and `slowest` by the best and the worst of the drills considered.

    `waiting` is time until archived blobs can be read at all, and part of all three.
    """

    seconds: float
    fastest: float
    slowest: float
    drills: int
    waiting: float = 0.0


def predict_rto(
    drills: Iterable[DrillTimes],
    restored_bytes: int,
    replayed_bytes: int,
    waiting: timedelta = timedelta(),
) -> RtoPrediction | None:
    """None without any drill. Sizes are those of the recovery that would have to be done now."""
    newest = sorted(drills, key=lambda drill: drill.at, reverse=True)[:DRILLS_CONSIDERED]
    if not newest:
        return None

    def total(choose: _Choose) -> float:
        return (
            choose([_seconds(drill, _REST) for drill in newest])
            + _RESTORING.seconds(newest, restored_bytes, choose)
            + _REPLAYING.seconds(newest, replayed_bytes, choose)
            + waiting.total_seconds()
        )

    return RtoPrediction(
        seconds=total(median),
        fastest=total(min),
        slowest=total(max),
        drills=len(newest),
        waiting=waiting.total_seconds(),
    )


def rto_findings(
    prediction: RtoPrediction | None, last: DrillTimes | None, promised: timedelta, now: datetime
) -> Iterator[Finding]:
    """When what the last drill measured, or what is predicted for now, is longer than promised."""
    limit = promised.total_seconds()
    measured = None if last is None else last.rto_ms / 1000
    if measured is not None and last is not None and measured > limit:
        fact = f"the last drill took {_minutes(measured)}, promised are {_minutes(limit)}"
        evidence = {"measured_seconds": f"{measured:.0f}", "promised_seconds": f"{limit:.0f}"}
        yield Finding(FindingCode.RTO_BROKEN, "measured", last.at, fact, evidence)
    if prediction is not None and prediction.seconds > limit:
        waits = f", {_minutes(prediction.waiting)} of it until archived blobs can be read"
        fact = (
            f"a recovery now would take about {_minutes(prediction.seconds)}"
            f"{waits if prediction.waiting else ''}, promised are {_minutes(limit)}"
        )
        evidence = {
            "predicted_seconds": f"{prediction.seconds:.0f}",
            "slowest_seconds": f"{prediction.slowest:.0f}",
            "promised_seconds": f"{limit:.0f}",
            "drills": str(prediction.drills),
        }
        yield Finding(FindingCode.RTO_BROKEN, "predicted", now, fact, evidence)


def _seconds(drill: DrillTimes, phases: Iterable[DrillPhase]) -> float:
    return sum(drill.phases.get(phase.value, 0) for phase in phases) / 1000


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"
