"""The agent's socket: one agent a path, none where others could put theirs; who may call."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.harness.wal_agents import client
from worker import pgkeep_wal
from worker.commands import wal_protocol as protocol
from worker.commands.wal_client_copy import (
    WalClientOutOfReach,
    archive_command,
    publish_client,
    restore_command,
)
from worker.commands.wal_server import serving
from worker.commands.wal_socket import WalSocketRefused, WalSocketTaken, listening, peer_of

NAME = "00000002.history"


def absent(_request: protocol.Request, _descriptor: int | None) -> protocol.Answer:
    return protocol.ABSENT


def test_a_living_agents_socket_is_left_alone_and_a_dead_ones_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "wal.sock"
    with listening(path):
        with pytest.raises(WalSocketTaken, match="another agent"), listening(path):
            pass
        assert path.is_socket()
    assert not path.exists()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with listening(path) as listener:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(path))
        accepted, _ = listener.accept()
        assert (peer_of(accepted).uid, peer_of(accepted).pid) == (os.geteuid(), os.getpid())
        accepted.close()
        peer.close()


def test_every_account_may_reach_the_socket_and_none_may_exchange_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run" / "wal.sock"
    with listening(path):
        assert path.stat().st_mode & 0o777 == 0o666
        assert path.parent.stat().st_mode & 0o777 == 0o755
    path.parent.chmod(0o777)
    with pytest.raises(WalSocketRefused, match="other accounts may write"), listening(path):
        pass


def test_where_no_socket_can_be_the_error_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path, why in (
        (tmp_path / "file", "no socket"),
        (tmp_path / "file" / "sock", "cannot listen"),
        (tmp_path / ("x" * 100), "longer than"),
    ):
        with pytest.raises(WalSocketRefused, match=why), listening(path):
            pass
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_an_account_that_is_not_listed_is_refused_before_anything_it_says(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    for folder in list(tmp_path.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    path, stranger, friend = tmp_path / "run" / "wal.sock", 54321, 54322
    words: list[str | Path] = [
        path.parent / "python3",
        "-IS",
        path.parent / "pgkeep_wal.py",
        "--socket",
        path,
    ]
    with serving(path, frozenset({friend}), {"fetch": absent}):
        refused = client(path, "fetch", NAME, "/nowhere", words=words, user=stranger)
        answered = client(path, "fetch", NAME, "/nowhere", words=words, user=friend)
    assert (refused.status, "wal-account-denied: account 54321" in refused.line) == (200, True)
    assert (answered.status, answered.line) == (1, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_client_that_an_account_cannot_reach_is_noticed_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(WalClientOutOfReach, match="54322"):
        publish_client(tmp_path, {54322})
    publish_client(tmp_path, {os.geteuid()})
    assert (tmp_path / "pgkeep_wal.py").read_bytes() == Path(pgkeep_wal.__file__).read_bytes()


def test_the_commands_for_postgresql_survive_any_path(tmp_path: Path) -> None:
    """PostgreSQL puts in %f, %p and %%; the shell does the rest."""

    def done(_request: protocol.Request, descriptor: int | None) -> protocol.Answer:
        assert descriptor is not None
        return protocol.DONE

    def run(command: str) -> int:
        for mark, value in (("%f", NAME), ("%p", "file"), ("%%", "%")):
            command = command.replace(mark, value)
        return subprocess.run(["/bin/sh", "-c", command], check=False, cwd=tmp_path).returncode

    path = tmp_path / "it's 100% $HOME" / "wal.sock"
    (tmp_path / "file").touch()
    with serving(path, frozenset(), {"fetch": absent, "push": done}):
        assert run(restore_command(path)) == 1
        assert run(archive_command(path)) == 0
    assert run(restore_command(path)) == 200
    assert run(archive_command(path)) == 1
    (path.parent / "python3").unlink()  # the shell says 127, an interpreter without its script 2
    assert run(restore_command(path)) == 200
    assert run(archive_command(path)) == 1


def test_the_end_waits_for_a_call_that_is_under_way_and_takes_no_more(tmp_path: Path) -> None:
    path, entered, leave = tmp_path / "run" / "wal.sock", threading.Event(), threading.Event()
    said = []

    def slow(_request: protocol.Request, _descriptor: int | None) -> protocol.Answer:
        entered.set()
        assert leave.wait(30)
        return protocol.ABSENT

    caller = threading.Thread(target=lambda: said.append(client(path, "fetch", NAME, "/x")))
    with serving(path, frozenset(), {"fetch": slow}):
        caller.start()
        assert entered.wait(30)
        threading.Timer(0.1, leave.set).start()
    caller.join()
    assert said[0].status == 1
    assert client(path, "fetch", NAME, "/x").status == 200


def test_a_handler_that_crashes_or_is_missing_answers_no_more_than_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", crashes.append)

    def crash(_request: protocol.Request, _descriptor: int | None) -> protocol.Answer:
        raise ZeroDivisionError

    path = tmp_path / "run" / "wal.sock"
    (tmp_path / "file").touch()
    with serving(path, frozenset(), {"fetch": crash}):
        assert client(path, "fetch", NAME, "/x").status == 200
        said = client(path, "push", tmp_path / "file", NAME)
    assert (said.status, "wal-request-invalid" in said.line) == (2, True)
    assert [crash.exc_type for crash in crashes] == [ZeroDivisionError]
