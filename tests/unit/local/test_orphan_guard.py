"""The guard ends what a process started, however that process ended."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.harness.deadline import wait_until

OWNER = """
import signal, subprocess, sys
from local import orphan_guard
watched, forgotten = (subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2))
for sleeper in (watched, forgotten):
    orphan_guard.watch(sleeper.pid, signal.SIGTERM)
orphan_guard.forget(forgotten.pid)
print(watched.pid, forgotten.pid, flush=True)
sys.stdin.readline()
for sleeper in (watched, forgotten):
    sleeper.returncode = 0  # not ours to wait for any more
"""


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None], ids=str)
def test_the_watched_one_ends_with_its_owner_and_the_forgotten_one_does_not(
    owner: subprocess.Popen[str], end: signal.Signals | None
) -> None:
    assert owner.stdin is not None
    assert owner.stdout is not None
    watched, forgotten = map(psutil.Process, map(int, owner.stdout.readline().split()))
    try:
        assert is_alive(watched)
        if end is None:
            owner.stdin.write("end\n")
            owner.stdin.flush()
        else:
            owner.send_signal(end)
        wait_until(lambda: not is_alive(watched), 20, "the end of the watched process")
        assert is_alive(forgotten)
    finally:
        forgotten.kill()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
