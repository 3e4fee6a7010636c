"""The benchmark itself: one source, every contender in turn, one report."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from local import postgres_programs
from local.benchmark import pg_basebackup, pgbackrest, pgkeep, zstd_bound
from local.benchmark.chain.contest import OLDEST_MAJOR, ChainContest, run_chain_contest
from local.benchmark.chain.pgbackrest import copies_whole_files
from local.benchmark.chain.report import ChainReport, ChainRow
from local.benchmark.control.contest import run_control_contest
from local.benchmark.control.report import ControlRow
from local.benchmark.machine import describe_machine, versions
from local.benchmark.place import Place, benchmark_place
from local.benchmark.report import Operation, Report, Row, disturbed, make_row
from local.benchmark.source import data_size, running_source
from local.benchmark.wal.contest import WalContest, run_wal_contest
from local.benchmark.wal.report import WalRow
from local.postgres_server import PostgresServer
from local.rpo.report import Loss, RpoReport
from local.rpo.series import Series, run_series
from shared.errors import NotFound
from shared.settings import ClusterWal

# What `make setup` installs; taken when no peer asks for an older one.
_OWN_MAJOR = 17
Say = Callable[[str], None]


class NoCommonPostgres(NotFound):
    """The PostgreSQL version that was asked for, or that the peers need, is not on this machine."""

    code = "benchmark-postgres-missing"
    hint = "Choose one of the installed versions with --major."


class Subject(StrEnum):
    """The parts of the benchmark; RPO has no peers and takes long, so nobody gets it unasked."""

    BACKUP = "backup"
    WAL = "wal"
    CHAIN = "chain"
    CONTROL = "control"
    RPO = "rpo"


@dataclass(frozen=True, slots=True)
class Contest:
    """`major` None means the newest that every contender supports."""

    subjects: frozenset[Subject]
    size_bytes: int
    wal_segments: int
    chain_bytes: int
    rpo_runs: int
    runs: int
    major: int | None
    tools: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Ring:
    """What a contender needs to step into."""

    place: Place
    source: PostgresServer
    size_bytes: int
    runs: int


BackupAndRestore = pgkeep.Measured | pgbackrest.Measured
Contender = Callable[[_Ring], Iterator[Row]]


def run_contest(contest: Contest, now: datetime, say: Say) -> Report:
    """Raises NoCommonPostgres, ContenderFailed. Leaves nothing behind."""
    peer = pgbackrest.installed_version()
    major = contest.major or choose_major(postgres_programs.available_majors(), peer)
    programs = postgres_programs.find(major)
    if programs is None:
        raise NoCommonPostgres(f"there is no PostgreSQL {major} on this machine")
    load = os.getloadavg()[0]
    with benchmark_place() as place:
        rows, size = _backups(place, programs, contest, peer, say)
        wal = _wal(place, programs, contest, peer, say)
        chain = _chain(place, contest, peer, say)
        control = _control(programs, contest, say)
        remarks = (*_remarks(peer, major, place), *_disturbances(rows, chain), *_old(chain, peer))
    return Report(
        date=now,
        machine=describe_machine(load),
        versions=versions(programs, peer),
        size_bytes=size,
        runs=contest.runs,
        rows=rows,
        wal=wal,
        chain=chain,
        control=control,
        rpo=_rpo(contest, say),
        remarks=remarks,
    ).compared()


def choose_major(available: Sequence[int], pgbackrest_version: str | None) -> int:
    """The newest that every contender supports. Raises NoCommonPostgres."""
    limit = _OWN_MAJOR
    if pgbackrest_version is not None:
        limit = min(limit, pgbackrest.newest_major(pgbackrest_version))
    fitting = [major for major in available if major <= limit]
    if not fitting:
        raise NoCommonPostgres(f"none of PostgreSQL {list(available)} is at most {limit}")
    return max(fitting)


def _backups(
    place: Place, programs: Path, contest: Contest, peer: str | None, say: Say
) -> tuple[tuple[Row, ...], int]:
    """The rows, and the size of the cluster that was backed up."""
    if Subject.BACKUP not in contest.subjects:
        return (), 0
    say(f"making a cluster of {contest.size_bytes / 1e9:.1f} GB")
    with running_source(programs, place.work / "source", contest.size_bytes) as source:
        ring = _Ring(place, source, data_size(source), contest.runs)
        return tuple(_rows(ring, contest.tools, peer, say)), ring.size_bytes


def _wal(
    place: Place, programs: Path, contest: Contest, peer: str | None, say: Say
) -> tuple[WalRow, ...]:
    if Subject.WAL not in contest.subjects:
        return ()
    segments, runs = contest.wal_segments, contest.runs
    wal = WalContest(programs, segments, runs, contest.tools, peers=peer is not None)
    return run_wal_contest(place, wal, say)


def _chain(place: Place, contest: Contest, peer: str | None, say: Say) -> ChainReport | None:
    """Our own PostgreSQL has incrementals, the peer's may be older: each has the newest it can."""
    if Subject.CHAIN not in contest.subjects:
        return None
    major = max(contest.major or _OWN_MAJOR, OLDEST_MAJOR)
    programs = postgres_programs.find(major)
    if programs is None:
        raise NoCommonPostgres(f"there is no PostgreSQL {major} on this machine")
    limit = 0 if peer is None else pgbackrest.newest_major(peer)
    fitting = [known for known in postgres_programs.available_majors() if known <= limit]
    peers = postgres_programs.find(max(fitting)) if fitting else None
    return run_chain_contest(
        place, ChainContest(programs, peers, contest.chain_bytes, contest.runs), say
    )


def _control(programs: Path, contest: Contest, say: Say) -> tuple[ControlRow, ...]:
    if Subject.CONTROL not in contest.subjects:
        return ()
    return tuple(run_control_contest(programs, contest.runs, say))


def _rpo(contest: Contest, say: Say) -> RpoReport | None:
    if Subject.RPO not in contest.subjects:
        return None
    flush_s = ClusterWal.model_fields["flush_seconds"].default
    return run_series(
        Series(contest.rpo_runs, Loss.SERVER, synchronous=False, flush_s=flush_s), say
    )


def _rows(ring: _Ring, tools: frozenset[str], peer: str | None, say: Say) -> Iterator[Row]:
    for tool, contender in _contenders(peer).items():
        if tools and tool not in tools:
            continue
        say(f"{tool} …")
        yield from contender(ring)


def _contenders(peer: str | None) -> dict[str, Contender]:
    own: dict[str, Contender] = {
        "zstd": _zstd,
        "pg_basebackup": _pg_basebackup,
        "pgkeep": _pgkeep,
        "pgkeep, no network": _pgkeep_without_network,
    }
    if peer is None:
        return own
    return {**own, "pgBackRest": _pgbackrest, "pgBackRest encrypted": _pgbackrest_encrypted}


def _zstd(ring: _Ring) -> Iterator[Row]:
    measured = [zstd_bound.measure(ring.place, ring.source) for _ in range(ring.runs)]
    usages, stored = [usage for usage, _ in measured], measured[0][1]
    yield make_row("zstd", Operation.COMPRESSION, usages, ring.size_bytes, stored_bytes=stored)


def _pg_basebackup(ring: _Ring) -> Iterator[Row]:
    usages = [pg_basebackup.measure(ring.place, ring.source) for _ in range(ring.runs)]
    yield make_row("pg_basebackup", Operation.BACKUP, usages, ring.size_bytes)


def _pgkeep(ring: _Ring) -> Iterator[Row]:
    runs = [
        pgkeep.measure_into_azurite(ring.place, ring.source, ring.size_bytes)
        for _ in range(ring.runs)
    ]
    yield from _both("pgkeep", ring, runs)


def _pgkeep_without_network(ring: _Ring) -> Iterator[Row]:
    runs = [pgkeep.measure_into_directory(ring.place, ring.source) for _ in range(ring.runs)]
    yield from _both("pgkeep, no network", ring, runs)


def _pgbackrest(ring: _Ring) -> Iterator[Row]:
    yield from _both("pgBackRest", ring, _pgbackrest_runs(ring, cipher=False))


def _pgbackrest_encrypted(ring: _Ring) -> Iterator[Row]:
    yield from _both("pgBackRest encrypted", ring, _pgbackrest_runs(ring, cipher=True))


def _pgbackrest_runs(ring: _Ring, *, cipher: bool) -> list[BackupAndRestore]:
    return [
        pgbackrest.measure(ring.place, ring.source, ring.size_bytes, cipher=cipher)
        for _ in range(ring.runs)
    ]


def _both(tool: str, ring: _Ring, runs: Sequence[BackupAndRestore]) -> Iterator[Row]:
    size, stored = ring.size_bytes, runs[0].stored_bytes
    backups, restores = [run.backup for run in runs], [run.restore for run in runs]
    yield make_row(tool, Operation.BACKUP, backups, size, stored_bytes=stored)
    yield make_row(tool, Operation.RESTORE, restores, size)


def _remarks(peer: str | None, major: int, place: Place) -> Iterator[str]:
    if peer is None:
        yield "pgBackRest is not on this machine, so nothing is compared with it"
    if not place.on_ram_disk:
        yield "there is no RAM disk: what is restored goes to the temporary directory"
    if peer is not None and major < pgbackrest.newest_major(peer):
        yield f"pgBackRest {peer} knows newer PostgreSQL than the {major} measured here"


def _disturbances(rows: Sequence[Row], chain: ChainReport | None) -> Iterator[str]:
    every: list[Row | ChainRow] = [*rows, *(chain.rows if chain else ())]
    names = disturbed(every)
    if names:
        during = "all of it" if len(names) == len(every) else ", ".join(names)
        yield f"other programs were busy during {during}; measure again on a quiet one"


def _old(chain: ChainReport | None, peer: str | None) -> Iterator[str]:
    if chain is not None and peer is not None and copies_whole_files(peer):
        yield f"pgBackRest {peer} has no block incrementals (2.46): it copies changed files whole"
