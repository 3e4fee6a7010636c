"""A verb of pgkeep as a person would type it, in a process of its own, with its JSON read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from local.postgres_initdb import clean_environment
from local.processes import CHECKOUT
from shared.errors import Refused

LIMIT_S = 240.0
_LAST_WORDS = 2_000  # characters of its output that an error quotes


class VerbFailed(Refused):
    """A verb of pgkeep ended with an error."""

    code = "local-verb-failed"
    hint = "The message holds what it said."


def pgkeep(config: Path, *words: str, limit_s: float = LIMIT_S) -> Any:  # noqa: ANN401 - JSON
    """What `pgkeep … --json` prints. Raises VerbFailed."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", *words, "--json", "--config", str(config)],
        check=False,
        cwd=CHECKOUT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=limit_s,
    )
    if done.returncode:
        said = f"{done.stdout}{done.stderr}".strip()[-_LAST_WORDS:]
        raise VerbFailed(f"pgkeep {' '.join(words)} ended with {done.returncode}: {said}")
    return json.loads(done.stdout)
