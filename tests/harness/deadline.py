"""Waiting for what other threads and processes do: on the condition itself, with a deadline."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

_LOOK_EVERY_S = 0.02


def wait_until(condition: Callable[[], Found], timeout_s: float, what: str) -> Found:
    """The condition's first true value. Raises TimeoutError, which says `what` did not happen."""
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"within {timeout_s:g} s this did not happen: {what}")
        pause.wait(_LOOK_EVERY_S)
    return found
