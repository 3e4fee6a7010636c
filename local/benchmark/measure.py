"""What a command costs: wall time, CPU of everybody who works for it, memory at its peak."""

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from local.processes import CHECKOUT
from local.unprivileged import Account, identity
from shared.errors import Unavailable

TOOL = "tool"
_SAMPLE_EVERY_S = 0.05
_MIB = 1 << 20
_LAST_WORDS = 2_000  # characters of a command's output that an error quotes


class ContenderFailed(Unavailable):
    """A program of the benchmark ended with an error, so there is nothing to compare."""

    code = "benchmark-program-failed"
    hint = "The message ends with what the program said."


@dataclass(frozen=True, slots=True)
class Command:
    """A program as a contender runs it; `account` as in local.unprivileged."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_s` is by party: the tool with all its children, and each server that it kept busy.

    `foreign_cpu_s` is what everybody else on the machine used meanwhile: it should be next to 0.
    """

    wall_s: float
    cpu_s: Mapping[str, float]
    peak_rss_mib: float
    foreign_cpu_s: float = 0.0

    @property
    def total_cpu_s(self) -> float:
        return sum(self.cpu_s.values())


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that succeeded: what it cost, and what it wrote to standard output."""

    usage: Usage
    output: str


def run_measured(command: Command, servers: Mapping[str, int], log: Path) -> Finished:
    """Run to the end, with the load on `servers` (pid by name). Raises ContenderFailed.

    Standard error goes to `log`, standard output beside it.
    """
    output = log.with_suffix(".out")
    before = {name: cpu_of_tree(pid) for name, pid in servers.items()}
    with output.open("wb") as out, log.open("wb") as errors:
        started, machine = time.monotonic(), cpu_of_machine()
        process = subprocess.Popen(
            [*command.arguments],
            cwd=CHECKOUT if command.account is None else "/",
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            **identity(command.account),
        )
        with _PeakMemory(process.pid) as memory:
            _, status, used = os.wait4(process.pid, 0)
        wall, busy = time.monotonic() - started, cpu_of_machine() - machine
    process.returncode = os.waitstatus_to_exitcode(status)
    _require_success(command, process.returncode, (output, log))
    # The kernel's own maximum of one process catches what fell between two samples.
    peak = max(memory.peak_mib, used.ru_maxrss * 1024 / _MIB)
    cpu = {TOOL: used.ru_utime + used.ru_stime}
    cpu |= {name: cpu_of_tree(pid) - before[name] for name, pid in servers.items()}
    foreign = max(0.0, busy - sum(cpu.values()))
    return Finished(Usage(wall, cpu, peak, foreign), output.read_text("utf-8", "replace"))


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process, its living children, and those children it has seen end."""
    return sum(map(_cpu_with_ended_children, _tree(pid)))


def cpu_of_machine() -> float:
    """CPU seconds that everybody on this machine has used since it booted."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _cpu_with_ended_children(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system + times.children_user + times.children_system
    return 0.0


def _tree(pid: int) -> Iterable[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _require_success(command: Command, status: int, outputs: Iterable[Path]) -> None:
    if status:
        said = "".join(path.read_text("utf-8", "replace") for path in outputs).strip()
        name = " ".join(command.arguments[:4])
        raise ContenderFailed(f"{name} … ended with {status}: {said[-_LAST_WORDS:]}")


class _PeakMemory:
    """Samples the resident memory of a process tree, added up, from a thread of its own."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            resident = 0
            for process in _tree(self._pid):
                with suppress(psutil.NoSuchProcess):
                    resident += process.memory_info().rss
            self.peak_mib = max(self.peak_mib, resident / _MIB)
