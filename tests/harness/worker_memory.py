"""The memory of a verb at its peak, as a worker that does nothing else would need it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

from tests.harness.worker_services import CHECKOUT, Site

# What a worker may use, whatever the size of the cluster and the number of its files.
LIMIT_MIB = 256
_LOOK_EVERY_S = 0.02


def peak_rss_mib(site: Site, *arguments: str) -> float:
    """Runs the verb, which must succeed; VmHWM counts this program alone, not what forked it."""
    return run_with_peak(site, *arguments)[0]


def run_with_peak(site: Site, *arguments: str) -> tuple[float, Any]:
    """The same, with the JSON document that the verb printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments, "--json"],
        cwd=CHECKOUT,
        env={**os.environ, "PGKEEP_CONFIG": str(site.config)},
        stdout=subprocess.PIPE,
        text=True,
    )
    peak, pause = 0, Event()
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            peak = max(peak, int(found[1]))
        pause.wait(_LOOK_EVERY_S)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return peak / 1024, json.loads(output)
