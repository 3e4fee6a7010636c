"""Programs and records: nothing is left running, and no stranger is ever signalled."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local.processes import PartFailed, ProcessRecord, end, is_running, program, record, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def test_a_program_ends_with_its_block_and_its_output_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with program([sys.executable, "-c", "print('hello')"], log) as part:
        assert part.process.wait(30) == 0
        with pytest.raises(PartFailed, match="hello"):
            part.check()
    with program(SLEEP, log) as part:
        part.check()
    assert not psutil.pid_exists(part.process.pid)
    assert log.read_text() == "hello\n"


def test_a_program_that_never_gets_ready_is_told_from_one_that_ended(tmp_path: Path) -> None:
    slow, failing = tmp_path / "slow.log", [sys.executable, "-c", "raise SystemExit('no')"]
    with program(SLEEP, slow) as part, pytest.raises(PartFailed, match=r"come up in 0\.2 s"):
        part.wait_for_text(tmp_path / "never", 0.2)
    with program(failing, slow) as part, pytest.raises(PartFailed, match="has ended"):
        part.wait_for_text(tmp_path / "never", 30)


def test_a_record_finds_its_process_and_no_other() -> None:
    ours = record(os.getpid())
    assert ours is not None
    assert is_running(ours)
    assert not is_running(ProcessRecord(ours.pid, "another boot/1"))
    with subprocess.Popen(SLEEP) as sleeper:
        theirs = record(sleeper.pid)
        sleeper.kill()
    assert theirs is not None
    assert not is_running(theirs)


def test_a_reused_process_id_is_not_signalled() -> None:
    with subprocess.Popen(SLEEP) as stranger:
        end(ProcessRecord(stranger.pid, "another boot/1"), 5)
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_that_does_not_listen_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        found = record(deaf.pid)
        assert found is not None
        end(found, 0.5)
        assert deaf.wait(30) == -signal.SIGKILL


def test_waiting_ends_when_the_time_is_over() -> None:
    assert not wait_until(lambda: False, 0.2)
    assert wait_until(lambda: True, 0)
