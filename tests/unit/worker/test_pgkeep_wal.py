"""The client that PostgreSQL runs: what each failure says to PostgreSQL, how little it loads."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.wal_agents import SYSTEM_PYTHON, client
from worker import pgkeep_wal as pgkeep

SEGMENT = "000000010000000000000001"
Talk = Callable[[socket.socket], None]


@contextmanager
def agent(path: Path, talk: Talk) -> Iterator[Path]:
    """Takes one call, and talks to it as told."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            talk(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        thread.join()
        listener.close()


def says(line: bytes, *, file: Path | None = None, reads: bool = True) -> Talk:
    def talk(connection: socket.socket) -> None:
        if reads:
            _, descriptors, _, _ = socket.recv_fds(connection, pgkeep.MAX_LINE, 1)
            for descriptor in descriptors:
                os.close(descriptor)
        descriptors = [] if file is None else [os.open(file, os.O_RDONLY)]
        socket.send_fds(connection, [line], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    return talk


def refusal(status: int) -> bytes:
    known = f'"status": {status}, "code": "c", "fact": "f\\nx", "hint": "h"'
    return b'{"version": 1, "outcome": "failed", ' + known.encode() + b"}\n"


@pytest.mark.parametrize(
    ("talk", "push", "fetch", "line"),
    [
        (says(pgkeep.DONE), 0, 200, "wal-answer-garbled"),
        (says(pgkeep.ABSENT), 1, 1, "wal-answer-garbled"),
        (says(pgkeep.FOUND), 1, 200, "wal-answer-garbled"),  # without a file
        (says(refusal(75)), 75, 200, "c: f x (hint: h)"),
        (says(refusal(200)), 125, 200, "c: f x (hint: h)"),
        (says(refusal(0)), 1, 200, "c: f x (hint: h)"),
        (says(b"x" * pgkeep.MAX_LINE * 2), 1, 200, "wal-answer-garbled"),
        (says(b'{"version": 1}\n'), 1, 200, "wal-answer-garbled"),
        (says(pgkeep.DONE[:-1]), 1, 200, "wal-agent-unreachable"),
        (says(b""), 1, 200, "wal-agent-unreachable"),
        (says(b"", reads=False), 1, 200, "wal-agent-unreachable"),
    ],
)
def test_no_answer_but_the_good_one_is_taken_for_success_or_absence(
    tmp_path: Path, talk: Talk, push: int, fetch: int, line: str
) -> None:
    (tmp_path / "file").touch()
    with agent(tmp_path / "1.sock", talk) as path:
        said = client(path, "push", tmp_path / "file", SEGMENT)
    assert said.status == push
    assert (line in said.line) == (push != 0)
    with agent(tmp_path / "2.sock", talk) as path:
        said = client(path, "fetch", SEGMENT, tmp_path / "target")
    assert said.status == fetch
    assert (line in said.line) == (fetch != 1)
    assert not (tmp_path / "target").exists()


def test_w18_r21_without_an_agent_a_push_fails_countably_and_a_fetch_fatally(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    for path in (tmp_path / "none.sock", tmp_path / "dead.sock", tmp_path / ("x" * 120)):
        assert client(path, "push", tmp_path / "file", SEGMENT).status == 1
        assert client(path, "fetch", SEGMENT, tmp_path / "target").status == 200


def test_an_agent_that_says_nothing_is_left_in_time(tmp_path: Path) -> None:
    over = threading.Event()
    with agent(tmp_path / "sock", lambda _: assert_(over.wait(30))) as path:
        said = client(path, "--timeout", "0.2", "fetch", SEGMENT, tmp_path / "target")
        over.set()
    assert (said.status, "timed out" in said.line) == (200, True)


def assert_(value: object) -> None:
    assert value


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((), 200),
        (("fetch", SEGMENT), 200),
        (("push", "only-a-path"), 1),
        (("push", "a", "b", "c"), 1),
        (("fish", "a", "b"), 200),
        (("--nonsense", "fetch", "a", "b"), 200),
        (("--timeout", "soon", "fetch", "a", "b"), 200),
    ],
)
def test_a_call_that_makes_no_sense_never_says_absent(
    tmp_path: Path, words: tuple[str, ...], status: int
) -> None:
    said = client(tmp_path / "sock", *words)
    assert (said.status, "wal-usage" in said.line) == (status, True)


def test_w17_a_file_that_cannot_be_opened_is_named_with_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("vanished", "link"):
        said = client(tmp_path / "sock", "push", name, SEGMENT, folder=tmp_path)
        assert said.status == 1
        assert f"wal-file-unreadable: cannot open {tmp_path}/{name}" in said.line


def test_the_file_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "RECOVERYXLOG"
    source.write_bytes(os.urandom(3_000_001))
    target.write_text("old")
    (tmp_path / "RECOVERYXLOG.pgkeep").write_text("left by one that was killed")
    with agent(tmp_path / "1.sock", says(pgkeep.FOUND, file=source)) as path:
        assert client(path, "fetch", SEGMENT, target).status == 0
    assert target.read_bytes() == source.read_bytes()
    assert not (tmp_path / "RECOVERYXLOG.pgkeep").exists()
    with agent(tmp_path / "2.sock", says(pgkeep.FOUND, file=source)) as path:
        said = client(path, "fetch", SEGMENT, tmp_path / "no-folder" / "RECOVERYXLOG")
    assert (said.status, "wal-copy-failed" in said.line) == (200, True)


def test_absent_may_be_told_by_a_status_that_no_interpreter_uses(tmp_path: Path) -> None:
    with agent(tmp_path / "sock", says(pgkeep.ABSENT)) as path:
        assert client(path, "--absent", "44", "fetch", SEGMENT, tmp_path / "x").status == 44


def test_a_crash_inside_the_client_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pgkeep, "_ask", crash)
    (tmp_path / "file").touch()
    assert pgkeep.run(["push", str(tmp_path / "file"), SEGMENT]) == 1
    assert pgkeep.run(["fetch", SEGMENT, str(tmp_path / "file")]) == 200
    assert capfd.readouterr().err.count("wal-client-crashed: MemoryError()") == 2


def test_the_environment_names_the_socket(tmp_path: Path) -> None:
    command = [SYSTEM_PYTHON, "-IS", pgkeep.__file__, "fetch", SEGMENT, str(tmp_path / "x")]
    variables = {pgkeep.SOCKET_VARIABLE: str(tmp_path / "named.sock")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    assert (done.returncode, "named.sock" in done.stderr) == (200, True)


def test_starting_loads_one_module_that_python_has_not_loaded_itself() -> None:
    script = (
        "import sys, os; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"
    )
    load = f"exec(compile(open({pgkeep.__file__!r}).read(), 'client', 'exec'), {{'__name__': 'x'}})"
    for python in (SYSTEM_PYTHON, sys.executable):
        command = [python, "-IS", "-c", script.format(load)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert done.stdout.split() == ["_socket"]
