"""A worker that SIGKILLs itself at a chosen moment, as a host that dies does: no handler runs.

    python -m tests.harness.killed_worker CONFIG backup|synthetic|restore MOMENT NUMBER [TARGET]

MOMENT is `before` or `after` the commit of that NUMBER, or `during` the ranged read of that NUMBER.
The product has no hook for it: the store is wrapped where a test may wrap it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from shared.repository.blob_store import BlobName, BlobStore
from shared.settings import load
from tests.harness.worker_services import CHECKOUT, Silent, Site, WatchedStore
from worker import wiring
from worker.commands.backup import BackupRequest, back_up
from worker.commands.restore import restore
from worker.commands.synthetic import SyntheticRequest, synthesize


def run_and_kill(
    site: Site, verb: str, moment: str, number: int, target: Path | None = None
) -> int:
    """The exit status: -SIGKILL when the moment came, 0 when the verb ended before it."""
    command = [sys.executable, "-m", "tests.harness.killed_worker", str(site.config), verb]
    command += [moment, str(number), *([str(target)] if target else [])]
    done = subprocess.run(command, check=False, cwd=CHECKOUT, timeout=120, capture_output=True)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr.decode()
    return done.returncode


@dataclass
class DyingStore(WatchedStore):
    """Kills the process at the ranged read of this number."""

    fatal_read: int = -1
    _reads: Iterator[int] = field(default_factory=count)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        if next(self._reads) == self.fatal_read:
            _die()
        return super().read_range(name, offset, length)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(store: BlobStore, moment: str, number: int) -> DyingStore:
    commits = count()

    def at_commit(_name: BlobName) -> None:
        if next(commits) == number:
            _die()

    match moment:
        case "before":
            return DyingStore(store, before=at_commit)
        case "after":
            return DyingStore(store, after=at_commit)
        case _:
            return DyingStore(store, fatal_read=number)


def main(config: str, verb: str, moment: str, number: str, target: str = "") -> None:
    settings = load(Path(config), {})
    services = wiring.services(settings, Silent())
    services = replace(services, store=_dying(services.store, moment, int(number)))
    if verb == "backup":
        back_up(services, settings.cluster[0], BackupRequest())
    elif verb == "synthetic":
        synthesize(services, settings.cluster[0], SyntheticRequest())
    else:
        site = Site(Path(config).parent, None, {})  # type: ignore[arg-type] # only its request() is used
        restore(services, site.request(Path(target)))


if __name__ == "__main__":
    main(*sys.argv[1:])
