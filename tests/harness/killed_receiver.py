"""A receiver of WAL that SIGKILLs itself at a chosen commit, as a host that dies does.

python -m tests.harness.killed_receiver CONFIG before|after NUMBER
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from shared.repository.blob_store import BlobName, BlobStore
from shared.settings import load
from tests.harness.worker_services import CHECKOUT, Silent, Site, WatchedStore
from worker import wiring
from worker.commands.wal_receive import receive

LIMIT_S = 60


@contextmanager
def dying_receiver(site: Site, moment: str, number: int) -> Iterator[None]:
    """It must have died by itself, of SIGKILL, when the block is over; else the test fails."""
    command = [sys.executable, "-m", "tests.harness.killed_receiver", str(site.config)]
    process = subprocess.Popen(
        [*command, moment, str(number)], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    )
    try:
        yield
        _, trouble = process.communicate(timeout=LIMIT_S)
        assert process.returncode == -signal.SIGKILL, trouble
    finally:
        process.kill()
        process.communicate()


def _watched(store: BlobStore, moment: str, number: int) -> WatchedStore:
    commits = count()

    def at_commit(_name: BlobName) -> None:
        if next(commits) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    watched = WatchedStore(store)
    setattr(watched, moment, at_commit)
    return watched


def main(config: str, moment: str, number: str) -> None:
    settings = load(Path(config), {})
    services = wiring.services(settings, Silent())
    services = replace(services, store=_watched(services.store, moment, int(number)))
    receive(services, settings.cluster[0], stop=threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
