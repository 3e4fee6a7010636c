"""Process edge of the worker: clean environment in, exit status out."""

import ctypes
import gc
import json
import logging
import os
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from shared.errors import PgkeepError
from shared.event_log import write_to
from shared.system_trust import lend_trust

# malloc.h of glibc, mallopt(3)
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT: Final = 64 << 20  # bytes; half of it is the most that the other threshold may be


def main() -> int:
    """Run one verb. Errors of pgkeep become one clear message and their exit status."""
    # Nothing but our own conninfo may decide where we connect and how (threat T18).
    for name in [name for name in os.environ if name.startswith("PG") and name[:6] != "PGKEEP"]:
        del os.environ[name]
    lend_trust(os.environ, ssl.get_default_verify_paths())
    _keep_one_heap()
    write_to(sys.stderr, level=logging.INFO if _takes_long(sys.argv) else logging.WARNING)
    try:
        # Typer reports usage errors itself, with status 2, and always ends by SystemExit.
        _command_line()()
    except PgkeepError as error:
        _report(error)
        return error.exit_status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _command_line() -> Callable[[], None]:
    """The parser and every verb, imported without looking for garbage.

    Importing makes a hundred thousand objects that stay: collections would go through them again
    and again, now and in every verb, and take a third of the time until the verb begins.
    """
    gc.disable()
    from worker.cli import app

    gc.freeze()
    gc.enable()
    return app


def _keep_one_heap() -> None:
    """Let threads use again what others freed, and give it back to the kernel late.

    glibc gives threads heaps of their own, and each would keep the buffers of a few megabytes that
    pass through it: tens of megabytes in all, which none of the others can use. And it returns
    such buffers at once, so that the kernel fills the next one with zeros again: a quarter of its
    time in a restore.
    """
    with suppress(AttributeError, OSError):  # other C libraries have one heap, and no such call
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _KEPT // 2)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def _takes_long(arguments: list[str]) -> bool:
    """What runs for hours tells how it goes."""
    return arguments[1:2] in (["run"], ["wal"]) or "--recover" in arguments


def _report(error: PgkeepError) -> None:
    if "--json" in sys.argv:
        document = {"error": {"code": error.code, "fact": error.fact, "hint": error.advice}}
        sys.stdout.write(json.dumps(document) + "\n")
        return
    sys.stderr.write(f"pgkeep: {error.code}: {error.fact}\nHINT: {error.advice}\n")


if __name__ == "__main__":
    sys.exit(main())
