"""The chain part of the benchmark: everybody's backups first, then restores in turn."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from local import postgres_programs
from local.benchmark.chain.contender import Contender
from local.benchmark.chain.pgbackrest import PGBACKREST, open_pgbackrest
from local.benchmark.chain.pgkeep import OWN, open_pgkeep
from local.benchmark.chain.report import ChainReport, Key, Measured, chain_report
from local.benchmark.place import Place

# pg_basebackup --incremental, pg_combinebackup and our incrementals need it.
OLDEST_MAJOR = 17
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ChainContest:
    """`peer_programs`: PostgreSQL for pgBackRest; None when it does not take part."""

    programs: Path
    peer_programs: Path | None
    size_bytes: int
    runs: int


def run_chain_contest(place: Place, contest: ChainContest, say: Say) -> ChainReport:
    """Raises ContenderFailed."""
    with ExitStack() as stack:
        say(f"{OWN}: a full and seven incrementals of {contest.size_bytes / 1e9:.1f} GB …")
        own = open_pgkeep(place, contest.programs, contest.size_bytes)
        contender, size = stack.enter_context(own)
        contenders = [contender]
        if contest.peer_programs is not None:
            say(f"{PGBACKREST}: the same …")
            peer = open_pgbackrest(place, contest.peer_programs, contest.size_bytes)
            contenders.append(stack.enter_context(peer))
        measured: dict[Key, list[Measured]] = {}
        for key, took in _everything(contenders, contest.runs, say):
            measured.setdefault(key, []).append(took)
        return chain_report(size, measured, _servers(contest))


def _servers(contest: ChainContest) -> dict[str, str]:
    found = {OWN: contest.programs, PGBACKREST: contest.peer_programs}
    return {tool: postgres_programs.version_of(path) for tool, path in found.items() if path}


def _everything(
    contenders: Sequence[Contender], rounds: int, say: Say
) -> Iterator[tuple[Key, Measured]]:
    for contender in contenders:
        yield from contender.backups
    for number in range(rounds):
        say(f"restores, round {number + 1} of {rounds} …")
        for contender in contenders:
            for key, restore in contender.restores.items():
                yield key, restore()
