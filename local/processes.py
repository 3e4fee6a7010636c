"""Programs of a stack, each in a session of its own, and the record by which `down` finds `up`.

A record holds a pid and when that process began, so that a pid which the system has given to
somebody else since is never signalled.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from local import orphan_guard
from local.postgres_initdb import clean_environment
from shared.errors import Unavailable

CHECKOUT = Path(__file__).resolve().parent.parent
# A worker may have to stop a drill's PostgreSQL first.
STOP_S = 20.0
_POLL_S = 0.05


class PartFailed(Unavailable):
    """A program of the stack ended or kept silent where it should have come up."""

    code = "stack-part-failed"
    hint = "Its log file, named in the message, has the whole story."


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process that runs. `identity`, the boot and the tick it began in, is unique."""

    pid: int
    identity: str


@dataclass(frozen=True, slots=True)
class Program:
    """One that this process runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises PartFailed, with the program's last words, when it has ended."""
        if self.process.poll() is not None:
            raise PartFailed(f"{self.log.stem} has ended, see {self.log}: {self.last_words()}")

    def wait_for_text(self, path: Path, seconds: float) -> str:
        """What it writes into a file once it is ready. Raises PartFailed."""
        if wait_until(lambda: _has_text(path) or self.process.poll() is not None, seconds):
            self.check()
            return path.read_text("utf-8")
        raise PartFailed(f"{self.log.stem} did not come up in {seconds:g} s, see {self.log}")

    def last_words(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])


@contextmanager
def program(arguments: Sequence[str], log: Path) -> Iterator[Program]:
    """Run a program, from the checkout, until the block ends; its outputs are appended to `log`.

    Should this process be killed, the orphan guard ends the program.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*arguments],
            cwd=CHECKOUT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C at the terminal is for us to pass on
        )
    orphan_guard.watch(process.pid, signal.SIGTERM)
    try:
        yield Program(process, log)
    finally:
        _stop(process)
        orphan_guard.forget(process.pid)


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = _POLL_S) -> bool:
    """Look again and again; False when the time is over."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(every)
    return True


def record(pid: int) -> ProcessRecord | None:
    """None for a process that is gone, or that only waits for its parent to notice (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else ProcessRecord(pid, f"{boot}/{fields[19]}")


def is_running(process: ProcessRecord) -> bool:
    return record(process.pid) == process


def end(process: ProcessRecord, seconds: float) -> None:
    """SIGTERM, and SIGKILL when that was not enough; nothing when the process is gone already."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if is_running(process):
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        if wait_until(lambda: not is_running(process), seconds):
            return


def _has_text(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
