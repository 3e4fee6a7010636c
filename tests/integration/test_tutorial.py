"""The tutorial's commands, run as they stand there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs/tutorials/first-backup-and-restore.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_tutorial_ends_with_a_proven_backup(tmp_path: Path) -> None:
    commands = "".join(_BLOCK.findall(TUTORIAL.read_text("utf-8")))
    script = commands.replace("make setup\n", "").replace("stack=.local/first", f"stack={tmp_path}")
    assert script != commands
    # A failure on the way must not leave the stack behind.
    trap = "trap 'python -m local down --dir \"$stack\" >&2' EXIT\n"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PGKEEP_")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", trap + script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "passed (every segment and file)" in done.stdout
    assert "PG_VERSION" in done.stdout
    assert re.search(r"drill of \S+: proven", done.stdout)
    assert '"status_url":"/api/drills/' in done.stdout
