"""What one process can do against another of the same user: nobody reads or traces this one.

A restored server may run code that the superuser of its source planted. Where it runs as the same
user as the worker, the kernel would let it read /proc/<worker>/environ, memory and descriptors, and
so take the worker's Azure identity. A process that is not dumpable is closed to its own user, root
excepted, and writes no core (prctl(2), ptrace(2)); what it starts by execve is dumpable again.
"""

import ctypes
import logging
import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from shared.event_log import log_event

# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

_T = TypeVar("_T")


def close_to_others() -> None:
    """This process, from now on: what a restored server runs cannot look into it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def without_new_rights(start: Callable[[], _T]) -> _T:
    """`start` a process that gains nothing by set-user-ID programs, and nor does what it starts.

    The kernel keeps this per thread and hands it down: so a thread that ends with the call has it,
    and the worker itself does not. What `start` raises is raised here.
    """
    with ThreadPoolExecutor(1, initializer=_prctl, initargs=(_PR_SET_NO_NEW_PRIVS, 1)) as thread:
        return thread.submit(start).result()


def without_cores(process_id: int) -> None:
    """A core of a restored server would be restored data in a place that nobody sweeps."""
    with suppress(OSError):  # it has ended, and leaves none
        resource.prlimit(process_id, resource.RLIMIT_CORE, (0, 0))


def _prctl(option: int, value: int) -> None:
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        failed = prctl(*map(ctypes.c_ulong, (option, value, 0, 0, 0))) != 0
    except (AttributeError, OSError) as error:  # no Linux: there is no such call
        fact = str(error)
    else:
        if not failed:
            return
        fact = os.strerror(ctypes.get_errno())
    log_event("process-not-shielded", level=logging.WARNING, option=option, fact=fact)
