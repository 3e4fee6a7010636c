"""What moving WAL came to: rows of the benchmark's report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from local.percentiles import Spread, spread

_DIGITS = 3


class WalOperation(StrEnum):
    """PUSH as an archiver does, RECEIVE while the server writes, CATCH_UP after an outage."""

    PUSH = "push"
    RECEIVE = "receive"
    CATCH_UP = "catch up"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Moved:
    """What one run came to.

    `delays_s` has, for each segment, the seconds until it was durable: for a push those that
    PostgreSQL waits for the acknowledgement. `cpu_s` is that of the whole machine: programs in the
    background have nobody to bill.
    """

    wall_s: float
    cpu_s: float
    delays_s: Sequence[float] = ()
    failures: int = 0
    behind_bytes: int | None = None
    waited_s: float | None = None
    stored_bytes: int | None = None


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WalRatio(Part):
    """Ours divided by the peer's: below 1 is better."""

    wall: float
    p99: float | None


class WalRow(Part):
    """`behind_bytes`: what was not durable yet when the server stopped writing.

    `waiting_share`: the part of a replay in which PostgreSQL waited for a segment. `delay_ms` in
    milliseconds.
    """

    name: str
    tool: str
    operation: WalOperation
    segments: int
    wall_s: float
    segments_per_s: float
    machine_cpu_s: float
    delay_ms: Spread | None = None
    failures: int = 0
    behind_bytes: int | None = None
    waiting_share: float | None = None
    stored_bytes: int | None = None
    ratios: dict[str, WalRatio] = {}


def wal_row(tool: str, operation: WalOperation, runs: Sequence[Moved], segments: int) -> WalRow:
    """The best of several runs: what disturbs a run only ever makes it longer."""
    best = min(runs, key=lambda run: run.wall_s)
    waiting = None if best.waited_s is None else round(best.waited_s / best.wall_s, _DIGITS)
    return WalRow(
        name=f"{tool} {operation}",
        tool=tool,
        operation=operation,
        segments=segments,
        wall_s=round(best.wall_s, _DIGITS),
        segments_per_s=round(segments / best.wall_s, 1),
        machine_cpu_s=round(best.cpu_s, _DIGITS),
        delay_ms=spread([1000 * s for s in best.delays_s], 1) if best.delays_s else None,
        failures=best.failures,
        behind_bytes=best.behind_bytes,
        waiting_share=waiting,
        stored_bytes=best.stored_bytes,
    )


def compared(rows: Iterable[WalRow]) -> tuple[WalRow, ...]:
    """With the ratios of every row to its peers: the other tools doing the same thing."""
    known = tuple(rows)
    return tuple(row.model_copy(update={"ratios": _ratios(row, known)}) for row in known)


def _ratios(row: WalRow, rows: Iterable[WalRow]) -> dict[str, WalRatio]:
    return {
        peer.tool: WalRatio(wall=round(row.wall_s / peer.wall_s, _DIGITS), p99=_p99(row, peer))
        for peer in rows
        if peer.tool != row.tool and peer.operation is row.operation
    }


def _p99(row: WalRow, peer: WalRow) -> float | None:
    if row.delay_ms is None or peer.delay_ms is None:
        return None
    return round(row.delay_ms.p99 / peer.delay_ms.p99, _DIGITS)
