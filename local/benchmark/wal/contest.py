"""The WAL part of the benchmark: every contender in turn, with the same segments."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from local.benchmark.place import Place
from local.benchmark.wal.archives import (
    Archive,
    local_copy,
    pgbackrest_archive,
    pgkeep_archive,
)
from local.benchmark.wal.push import push_all
from local.benchmark.wal.receive import measure_receiver
from local.benchmark.wal.replay import replay
from local.benchmark.wal.report import Moved, WalOperation, WalRow, compared, wal_row
from local.benchmark.wal.supply import Supply, running_supply

Say = Callable[[str], None]
OpenArchive = Callable[[Place, Supply], AbstractContextManager[Archive]]

_PGKEEP = "pgkeep"


@dataclass(frozen=True, slots=True)
class WalContest:
    """`peers` is whether pgBackRest takes part; no `tools` means all of them."""

    programs: Path
    segments: int
    runs: int
    tools: frozenset[str]
    peers: bool

    def wants(self, tool: str) -> bool:
        return not self.tools or tool in self.tools


def run_wal_contest(place: Place, contest: WalContest, say: Say) -> tuple[WalRow, ...]:
    """Raises ContenderFailed."""
    say(f"writing {contest.segments} WAL segments")
    with running_supply(place, contest.programs, contest.segments) as supply:
        return compared(_rows(place, contest, supply, say))


def _rows(place: Place, contest: WalContest, supply: Supply, say: Say) -> Iterator[WalRow]:
    if contest.wants("cp"):
        say("cp: replay …")
        runs = [replay(place, supply, partial(local_copy, supply)) for _ in range(contest.runs)]
        yield wal_row("cp", WalOperation.REPLAY, runs, contest.segments)
    for tool, open_archive in _archives(contest).items():
        if contest.wants(tool):
            say(f"{tool}: push, replay …")
            yield from _push_and_replay(place, contest, supply, tool, open_archive)
    if contest.wants(_PGKEEP):
        say("pgkeep: receive …")
        yield from _receive(place, contest, supply)


def _archives(contest: WalContest) -> dict[str, OpenArchive]:
    own: dict[str, OpenArchive] = {_PGKEEP: pgkeep_archive}
    if not contest.peers:
        return own
    return {
        **own,
        "pgBackRest": partial(pgbackrest_archive, cipher=False),
        "pgBackRest encrypted": partial(pgbackrest_archive, cipher=True),
    }


def _push_and_replay(
    place: Place, contest: WalContest, supply: Supply, tool: str, open_archive: OpenArchive
) -> Iterator[WalRow]:
    pushes, replays = list[Moved](), list[Moved]()
    for _ in range(contest.runs):
        with open_archive(place, supply) as archive:
            pushes.append(push_all(place, archive))
            replays.append(replay(place, supply, archive.fetching))
    yield wal_row(tool, WalOperation.PUSH, pushes, contest.segments)
    yield wal_row(tool, WalOperation.REPLAY, replays, contest.segments)


def _receive(place: Place, contest: WalContest, supply: Supply) -> Iterator[WalRow]:
    runs: Sequence[tuple[Moved, Moved]] = [
        measure_receiver(place, supply, contest.segments) for _ in range(contest.runs)
    ]
    live, late = [run[0] for run in runs], [run[1] for run in runs]
    yield wal_row(_PGKEEP, WalOperation.RECEIVE, live, contest.segments)
    yield wal_row(_PGKEEP, WalOperation.CATCH_UP, late, contest.segments)
