"""PostgreSQL's archiver, without PostgreSQL: one segment after the other, each until it is acked.

As pgarch.c has it: the oldest `.ready` file, the command through a shell in the data directory,
`.done` when it exits with 0, else the same again.
"""

import subprocess
import threading
import time
from pathlib import Path

from local.benchmark.measure import ContenderFailed, cpu_of_machine
from local.benchmark.place import Place, environment
from local.benchmark.wal.archives import Archive
from local.benchmark.wal.report import Moved
from local.unprivileged import identity

_RETRY_S = 1.0  # pgarch.c waits so long after a failure
_FAILURES_MAX = 20
_LIMIT_S = 120


def push_all(place: Place, archive: Archive) -> Moved:
    """Until the last segment is acknowledged. Raises ContenderFailed."""
    delays, failures = list[float](), 0
    started, cpu = time.monotonic(), cpu_of_machine()
    for ready in sorted((archive.tree / "pg_wal" / "archive_status").glob("*.ready")):
        began = time.monotonic()
        failures += _until_acknowledged(place, archive, ready)
        delays.append(time.monotonic() - began)
    wall, busy = time.monotonic() - started, cpu_of_machine() - cpu
    return Moved(wall, busy, delays, failures, stored_bytes=archive.stored_bytes())


def _until_acknowledged(place: Place, archive: Archive, ready: Path) -> int:
    """How often it failed before."""
    command = archive.push.replace("%p", f"pg_wal/{ready.stem}").replace("%f", ready.stem)
    failures = 0
    while (done := _run(place, archive.tree, command)).returncode:
        failures += 1
        if failures == _FAILURES_MAX:
            raise ContenderFailed(f"{command} failed {failures} times: {done.stdout.strip()}")
        threading.Event().wait(_RETRY_S)
    ready.rename(ready.with_suffix(".done"))
    return failures


def _run(place: Place, tree: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command],
        check=False,
        cwd=tree,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT_S,
        **identity(place.account),
    )
