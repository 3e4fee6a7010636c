"""Process edge of the worker: clean environment in, exit status out."""

import json
import logging
import os
import sys

from shared.errors import PgkeepError
from shared.event_log import write_to
from worker.cli import app


def main() -> int:
    """Run one verb. Errors of pgkeep become one clear message and their exit status."""
    # Nothing but our own conninfo may decide where we connect and how (threat T18).
    for name in [name for name in os.environ if name.startswith("PG") and name[:6] != "PGKEEP"]:
        del os.environ[name]
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
