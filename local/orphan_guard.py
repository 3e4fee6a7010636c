"""Servers end with the process that started them, however that one ends — SIGKILL included.

A guard process, one for each process that starts servers, reads a pipe whose other end only that
process holds. The end of the file is the end of the owner: the guard then signals what is left.
(PR_SET_PDEATHSIG would not do: it fires when the starting *thread* ends.)
"""

import atexit
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

import psutil

_writing = threading.Lock()


def watch(pid: int, at_the_end: signal.Signals) -> None:
    """Have process `pid` signalled when this process is gone."""
    _tell(f"{pid} {at_the_end.value}")


def forget(pid: int) -> None:
    """Process `pid` has ended by itself."""
    _tell(f"{pid}")


def _tell(line: str) -> None:
    with _writing:
        pipe = _guard().stdin
        if pipe is None:
            raise RuntimeError("the guard has no pipe")
        pipe.write(line + "\n")
        pipe.flush()


@cache
def _guard() -> subprocess.Popen[str]:
    # A session of its own, so that Ctrl-C at the terminal does not end the guard first.
    command = [sys.executable, "-P", __file__]  # without local/ as a place for imports
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    atexit.register(guard.communicate)  # closes the pipe, waits for the guard's last deeds
    return guard


def _stand_guard(lines: Iterable[str]) -> None:
    watched: dict[int, tuple[psutil.Process, int]] = {}
    for line in lines:
        pid, *at_the_end = map(int, line.split())
        watched.pop(pid, None)
        if at_the_end:
            with suppress(psutil.NoSuchProcess):
                watched[pid] = (psutil.Process(pid), at_the_end[0])
    for process, number in watched.values():
        with suppress(psutil.NoSuchProcess):  # psutil knows a reused process id by its start time
            process.send_signal(number)


if __name__ == "__main__":
    _stand_guard(sys.stdin)
