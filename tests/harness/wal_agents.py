"""The WAL agent in a thread, in a process that can be killed, and its client as PostgreSQL runs it.

    python -m tests.harness.wal_agents CONFIG before|after NUMBER

runs an agent that SIGKILLs itself before or after the commit of that NUMBER.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from shared.settings import ClusterSettings, load
from tests.harness.deadline import wait_until
from tests.harness.worker_services import CHECKOUT, Silent, Site, WatchedStore
from worker import pgkeep_wal, wiring
from worker.commands.services import Services
from worker.commands.wal_agent import run_agent

LIMIT_S = 60
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Said:
    """How a client ended, and its one line."""

    status: int
    line: str


def client(
    path: Path,
    *arguments: str | Path,
    folder: Path | None = None,
    words: Sequence[str | Path] | None = None,
    user: int | None = None,
) -> Said:
    """`pgkeep-wal --socket PATH ARGUMENTS`, as PostgreSQL would run it."""
    done = subprocess.run(
        [*(words or client_words(path)), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=folder or "/",
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") <= 1, done.stderr
    return Said(done.returncode, done.stderr)


def client_words(path: Path) -> list[str | Path]:
    return [SYSTEM_PYTHON, "-IS", pgkeep_wal.__file__, "--socket", path]


def with_agent(site: Site, **wal: object) -> Site:
    """The site with a socket and a spool of its own."""
    folder = site.folder / "run"
    told = {"socket": str(folder / "wal.sock"), "spool": str(site.folder / "spool")}
    return site.changed(wal={**told, "report_seconds": 1, **wal})


@contextmanager
def running_agent(services: Services, cluster: ClusterSettings) -> Iterator[Path]:
    """An agent in a thread of this process; its socket."""
    stop, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            run_agent(services, cluster, stop=stop)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=run, name="agent")
    thread.start()
    path = services.settings.wal.socket
    try:
        wait_until(lambda: path.exists() or failures, LIMIT_S, "the agent listens")
        yield path
    finally:
        stop.set()
        thread.join()


@contextmanager
def agent_process(
    site: Site, moment: str = "never", number: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that may kill itself at a commit; ended if it did not."""
    command = [sys.executable, "-m", "tests.harness.wal_agents", str(site.config), moment]
    with subprocess.Popen(
        [*command, str(number)], cwd=CHECKOUT, stderr=subprocess.DEVNULL
    ) as process:
        try:
            path = site.settings.wal.socket
            wait_until(lambda: _listens(path) or process.poll() is not None, LIMIT_S, "it listens")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def _listens(path: Path) -> bool:
    """A dead agent's socket is there too, and refuses."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def main(config: str, moment: str, number: str) -> None:
    settings = load(Path(config), {})
    services = wiring.services(settings, Silent())
    commits = count()

    def at_commit(_name: object) -> None:
        if next(commits) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    store = WatchedStore(services.store)
    if moment == "before":
        store.before = at_commit
    elif moment == "after":
        store.after = at_commit
    run_agent(replace(services, store=store), settings.cluster[0], stop=wiring.stop_signal())


if __name__ == "__main__":
    main(*sys.argv[1:])
