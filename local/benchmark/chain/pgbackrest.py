"""pgBackRest's chain of the same story, on the newest PostgreSQL that it knows.

Block incrementals came with release 2.46. Older ones, as Debian's 2.45, copy every file whole in
which anything changed, and the report says so.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from local.azurite import EmulatedAccount
from local.benchmark.chain.contender import Contender, story
from local.benchmark.chain.disk import DiskPeak, allocated
from local.benchmark.chain.report import LINKS, Measured, Step
from local.benchmark.measure import run_measured
from local.benchmark.pgbackrest import CONTAINER, Run, configure
from local.benchmark.place import Place, fresh_emulator, server_pids
from local.benchmark.source import running_source
from shared.repository.azure_blob_store import AzureBlobStore, open_blob_store

PGBACKREST = "pgBackRest encrypted"
# https://pgbackrest.org/release.html
BLOCK_INCREMENTAL_SINCE = (2, 46)


def copies_whole_files(version: str) -> bool:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return numbers < BLOCK_INCREMENTAL_SINCE


@contextmanager
def open_pgbackrest(place: Place, programs: Path, size_bytes: int) -> Iterator[Contender]:
    """Raises ContenderFailed. The emulator has room for every link to be as large as the full."""
    with (
        running_source(programs, place.work / "pgbackrest-source", size_bytes) as source,
        fresh_emulator((LINKS + 2) * size_bytes) as (storage, pid),
        _store(storage) as store,
    ):
        run = Run(place, source, configure(place, source, storage, cipher=True))
        run_measured(run.command("stanza-create", "--no-online"), {}, run.log)
        servers = server_pids(source, pid)

        def back_up(step: Step) -> Measured:
            before = _stored(store)
            kind = "full" if step is Step.FULL else "incr"
            usage = run_measured(run.command("backup", f"--type={kind}"), servers, run.log).usage
            return Measured(usage, stored_bytes=_stored(store) - before)

        def restore(label: str) -> Measured:
            with place.target("pgbackrest-restored") as target, DiskPeak(target.parent) as disk:
                words = ("--type=none", f"--set={label}", f"--pg1-path={target}")
                usage = run_measured(run.command("restore", *words), servers, run.log).usage
                result = allocated(target)
            return Measured(usage, disk_peak_bytes=disk.peak_bytes, result_bytes=result)

        backups = [((PGBACKREST, step), took) for step, took in story(source, back_up)]
        labels = _labels(run)
        yield Contender(
            backups,
            {
                (PGBACKREST, Step.RESTORE_FULL): partial(restore, labels[0]),
                (PGBACKREST, Step.RESTORE_CHAIN): partial(restore, labels[LINKS]),
            },
        )


@contextmanager
def _store(storage: EmulatedAccount) -> Iterator[AzureBlobStore]:
    store = open_blob_store(storage.blob_url, storage.credential, ca_file=str(storage.ca_file))
    store.create_container(CONTAINER)
    try:
        yield store
    finally:
        store.close()


def _stored(store: AzureBlobStore) -> int:
    return sum(blob.size for blob in store.list(CONTAINER))


def _labels(run: Run) -> list[str]:
    """Oldest first."""
    said = run_measured(run.command("info", "--output=json"), {}, run.log).output
    [stanza] = json.loads(said)
    return [backup["label"] for backup in stanza["backup"]]
