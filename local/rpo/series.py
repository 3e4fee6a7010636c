"""Many runs with one emulator and one set of keys, each after another random while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from local import postgres_programs
from local.azurite import Azurite
from local.benchmark.place import benchmark_place
from local.rpo.kill_and_restore import BEAT_S, Ground, Plan, kill_and_restore
from local.rpo.report import Loss, RpoReport, Run, spreads
from local.stack import MAJOR, PostgresMissing
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from worker.keys.generate import generate_key_set

# At least until the backup's own WAL is behind us; then any moment is as good as another.
_LIVES_S = (1.0, 4.0)
_SEED = 1  # the same lengths of life in every series
_EMULATOR_MB = 2_000

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Series:
    """How often, what is lost, and how the receiver is set."""

    runs: int
    loss: Loss
    synchronous: bool
    flush_s: float


def run_series(series: Series, say: Say) -> RpoReport:
    """Raises RunFailed, PostgresMissing. Leaves nothing behind."""
    runs: list[Run] = []
    with _ground() as ground:
        for number, plan in enumerate(_plans(series), 1):
            runs.append(kill_and_restore(ground, plan))
            say(f"run {number} of {series.runs}: RPO {runs[-1].rpo_s:.2f} s")
    rpo, rto = spreads(runs)
    return RpoReport(
        date=datetime.now(UTC),
        loss=series.loss,
        synchronous=series.synchronous,
        flush_s=series.flush_s,
        beat_s=BEAT_S,
        postgres=str(MAJOR),
        rpo_s=rpo,
        rto_s=rto,
        runs=tuple(runs),
    )


def _plans(series: Series) -> Iterator[Plan]:
    """A receiver that dies too loses up to `flush_s`: no run shall end before it stored once."""
    random = Random(_SEED)  # noqa: S311 - repeatable times, not secrets
    shortest, longest = _LIVES_S
    if series.loss is Loss.BOTH and not series.synchronous:
        shortest, longest = shortest + series.flush_s, longest + 2 * series.flush_s
    for number in range(1, series.runs + 1):
        lives = random.uniform(shortest, longest)
        yield Plan(f"run-{number:03}", lives, series.loss, series.flush_s, series.synchronous)


@contextmanager
def _ground() -> Iterator[Ground]:
    programs = postgres_programs.find(MAJOR)
    if programs is None:
        raise PostgresMissing(f"there is no PostgreSQL {MAJOR} on this machine")
    with benchmark_place() as place, Azurite(None, memory_limit_mb=_EMULATOR_MB) as azurite:
        storage = azurite.account(azurite.account_name)
        store = open_blob_store(storage.blob_url, storage.credential)
        for container in layout.CONTAINERS:
            store.create_container(container)
        store.close()
        keys = generate_key_set(place.work / "keys")
        yield Ground(place.work, storage, keys, programs, place.account)
