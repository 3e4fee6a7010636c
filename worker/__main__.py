"""Process edge of the worker: clean environment in, exit status out."""

import ctypes
import json
import logging
import os
import ssl
import sys
from contextlib import suppress
from typing import Final

from shared.errors import PgkeepError
from shared.event_log import write_to
from shared.system_trust import lend_trust
from worker.cli import app

_M_ARENA_MAX: Final = -8  # malloc.h of glibc, mallopt(3)


def main() -> int:
    """Run one verb. Errors of pgkeep become one clear message and their exit status."""
    # Nothing but our own conninfo may decide where we connect and how (threat T18).
    for name in [name for name in os.environ if name.startswith("PG") and name[:6] != "PGKEEP"]:
        del os.environ[name]
    lend_trust(os.environ, ssl.get_default_verify_paths())
    _share_one_heap()
    write_to(sys.stderr, level=logging.INFO if _takes_long(sys.argv) else logging.WARNING)
    try:
        # Typer reports usage errors itself, with status 2, and always ends by SystemExit.
        app()
    except PgkeepError as error:
        _report(error)
        return error.exit_status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _share_one_heap() -> None:
    """Let threads use again what others freed.

    glibc gives threads heaps of their own, and each would keep the buffers of a few megabytes that
    pass through it: tens of megabytes in all, which none of the others can use.
    """
    with suppress(AttributeError, OSError):  # other C libraries have one heap, and no such call
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


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
