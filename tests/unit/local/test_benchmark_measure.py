"""What a command costs: its children and the servers it keeps busy are counted, failures told."""

import subprocess
import sys
from pathlib import Path

import pytest

from local.benchmark.measure import TOOL, Command, ContenderFailed, cpu_of_tree, run_measured
from local.benchmark.place import environment

BUSY = """
import time
until = time.process_time() + {seconds}
while time.process_time() < until:
    pass
"""


def python(code: str) -> Command:
    return Command([sys.executable, "-c", code], environment())


def test_cpu_of_a_child_counts_as_the_tools_own(tmp_path: Path) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '''{BUSY}'''])"
    usage = run_measured(python(child.format(seconds=0.3)), {}, tmp_path / "log").usage
    assert usage.cpu_s[TOOL] >= 0.3
    assert usage.total_cpu_s == usage.cpu_s[TOOL]
    assert usage.wall_s >= 0.3


def test_a_server_is_charged_only_for_what_it_does_meanwhile(tmp_path: Path) -> None:
    endless = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(endless) as server:
        try:
            busy = run_measured(python(BUSY.format(seconds=0.2)), {"s": server.pid}, tmp_path / "a")
            total = cpu_of_tree(server.pid)
        finally:
            server.kill()
    assert 0 < busy.usage.cpu_s["s"] <= total
    assert busy.usage.total_cpu_s > busy.usage.cpu_s[TOOL]


def test_a_child_that_a_server_has_seen_end_stays_on_its_bill() -> None:
    spends = BUSY.format(seconds=0.2)
    code = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', '''{spends}''']);"
        "print('ended', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        assert cpu_of_tree(server.pid) >= 0.2
        server.kill()


def test_what_others_use_meanwhile_is_told_apart(tmp_path: Path) -> None:
    endless = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(endless) as stranger:
        try:
            usage = run_measured(python(BUSY.format(seconds=0.5)), {}, tmp_path / "log").usage
        finally:
            stranger.kill()
    assert usage.foreign_cpu_s > 0.1


def test_memory_is_that_of_the_whole_tree_at_its_peak(tmp_path: Path) -> None:
    held = "data = bytearray(b'x') * (64 << 20)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    assert run_measured(python(child), {}, tmp_path / "log").usage.peak_rss_mib >= 64


def test_the_output_comes_back(tmp_path: Path) -> None:
    assert run_measured(python("print('done')"), {}, tmp_path / "log").output == "done\n"


def test_a_failure_is_told_with_status_and_last_words(tmp_path: Path) -> None:
    with pytest.raises(ContenderFailed, match=r"ended with 3: no stanza"):
        run_measured(
            python("import sys; print('no stanza', file=sys.stderr); sys.exit(3)"),
            {},
            tmp_path / "log",
        )


def test_a_process_that_is_gone_costs_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert cpu_of_tree(process.pid) == 0
