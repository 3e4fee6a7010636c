"""This project's chain, and PostgreSQL's own way to restore it from the same repository.

That way is what everybody does who has PostgreSQL's incrementals: fetch every link as it is, then
run pg_combinebackup. The full is fetched by `pgkeep restore`, the fastest way here to get it; the
incrementals by local.benchmark.chain.raw_links. Both open the same blobs that our restore opens.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from local.benchmark import pgkeep
from local.benchmark.chain.contender import Contender, story, together
from local.benchmark.chain.disk import DiskPeak, allocated
from local.benchmark.chain.report import LINKS, Measured, Step
from local.benchmark.measure import Command, ContenderFailed, Usage, run_measured
from local.benchmark.place import Place, environment, fresh_emulator, server_pids
from local.benchmark.source import data_size, running_source

OWN = "pgkeep"
FETCH_AND_COMBINE = "fetch + pg_combinebackup"
_SETTINGS = {"summarize_wal": "on"}


@dataclass(slots=True)
class _Run:
    """One repository and the labels that were written to it, oldest first."""

    place: Place
    programs: Path
    writer: Path
    reader: Path
    servers: Mapping[str, int]
    labels: list[str] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.place.work / "pgkeep-chain.log"

    def measured(self, command: Command) -> tuple[Usage, dict[str, Any]]:
        done = run_measured(command, self.servers, self.log)
        return done.usage, json.loads(done.output or "{}")


@contextmanager
def open_pgkeep(place: Place, programs: Path, size_bytes: int) -> Iterator[tuple[Contender, int]]:
    """With the size of the cluster at its full backup. Raises ContenderFailed."""
    with (
        running_source(programs, place.work / "source", size_bytes, _SETTINGS) as source,
        fresh_emulator(2 * size_bytes) as (storage, pid),
    ):
        writer, reader = pgkeep.configure(place, source, storage)
        run = _Run(place, programs, writer, reader, server_pids(source, pid))
        size = data_size(source)
        backups = [((OWN, step), took) for step, took in story(source, partial(_back_up, run))]
        composer = pgkeep.configure_composer(place, source, storage)
        backups.append(((OWN, Step.SYNTHETIC), _compose(run, composer)))
        full, newest = run.labels[0], run.labels[LINKS]
        restores = {
            (OWN, Step.RESTORE_FULL): partial(_restore, run, full),
            (OWN, Step.RESTORE_CHAIN): partial(_restore, run, newest),
            (FETCH_AND_COMBINE, Step.RESTORE_CHAIN): partial(_fetch_and_combine, run),
        }
        yield Contender(backups, restores), size


def _back_up(run: _Run, step: Step) -> Measured:
    more = () if step is Step.FULL else ("--incremental",)
    command = pgkeep.verb("backup", pgkeep.CLUSTER, *more, "--json", config=run.writer)
    usage, said = run.measured(command)
    if (said["kind"] == "full") != (step is Step.FULL):
        raise ContenderFailed(f"a full was taken where an incremental was asked for: {said}")
    run.labels.append(said["label"])
    run.stored.append(said["stored_size"])
    return Measured(usage, stored_bytes=said["stored_size"])


def _compose(run: _Run, composer: Path) -> Measured:
    options = ("--synthetic", "--label", run.labels[LINKS], "--json")
    usage, said = run.measured(pgkeep.verb("backup", pgkeep.CLUSTER, *options, config=composer))
    return Measured(usage, stored_bytes=said["stored_size"])


def _restore(run: _Run, label: str) -> Measured:
    with run.place.target("pgkeep") as target:
        restore = partial(pgkeep.restore_verb, run.place, target, "--label", label)
        _, planned = run.measured(restore("--dry-run", config=run.reader))
        with DiskPeak(target.parent) as disk:
            usage, _ = run.measured(restore(config=run.reader))
        return Measured(
            usage,
            disk_peak_bytes=disk.peak_bytes,
            result_bytes=allocated(target),
            fetched_bytes=planned["fetched_bytes"],
        )


def _fetch_and_combine(run: _Run) -> Measured:
    chain = run.labels[: LINKS + 1]
    with run.place.target("combined") as target:
        links = target.parent / "links"
        links.mkdir()
        folders = [str(links / label) for label in chain]
        options = ["--config", str(run.reader), "--into", str(links)]
        raw = [sys.executable, "-m", "local.benchmark.chain.raw_links", *options, *chain[1:]]
        combine = [str(run.programs / "pg_combinebackup"), "--no-sync", f"--output={target}"]
        commands = (
            pgkeep.restore_verb(
                run.place, links / chain[0], "--label", chain[0], config=run.reader
            ),
            Command(raw, environment()),
            Command([*combine, *folders], environment()),
        )
        with DiskPeak(target.parent) as disk:
            usages = [run.measured(command)[0] for command in commands]
        return Measured(
            together(usages),
            disk_peak_bytes=disk.peak_bytes,
            result_bytes=allocated(target),
            fetched_bytes=sum(run.stored[: LINKS + 1]),
            combining_s=usages[-1].wall_s,
        )
