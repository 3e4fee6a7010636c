"""What client and agent say to each other: whatever PostgreSQL's paths are made of."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import StorageUnavailable
from worker import pgkeep_wal as client
from worker.commands import wal_protocol as protocol

NAME = "000000010000000000000001"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.settimeout(1)
    with ours, theirs:
        yield ours, theirs


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@given(
    st.sampled_from(["push", "fetch"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)
def test_the_agent_reads_what_the_client_writes_without_a_json_library(
    verb: str, path: str
) -> None:
    line = client._request(verb, NAME, path)
    assert line.count(b"\n") == 1
    request = protocol.Request.parse(line)
    assert (request.verb, request.name, request.path) == (verb, NAME, path)


def test_bytes_of_a_path_that_are_no_text_do_not_keep_the_file_from_being_pushed() -> None:
    request = protocol.Request.parse(client._request("push", NAME, os.fsdecode(b"/\xff/wal")))
    assert request.path.endswith("/wal")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"push a b\n",
        b'{"version": 2, "verb": "push", "name": "a", "path": "b"}\n',
        b'{"version": 1, "verb": "drop", "name": "a", "path": "b"}\n',
        b'{"version": 1, "verb": "push", "name": "a"}\n',
        b'{"version": 1, "verb": "push", "name": "a", "path": "b", "more": 1}\n',
        json.dumps({"version": 1, "verb": "push", "name": "a" * 256, "path": "b"}).encode(),
        json.dumps({"version": 1, "verb": "push", "name": "a", "path": "b" * 4097}).encode(),
    ],
)
def test_what_is_no_request_of_this_version_is_refused(line: bytes) -> None:
    with pytest.raises(protocol.WalRequestInvalid):
        protocol.Request.parse(line)


def test_the_three_good_answers_are_json_of_this_version() -> None:
    told = [json.loads(line) for line in (client.DONE, client.FOUND, client.ABSENT)]
    assert [item["outcome"] for item in told] == ["done", "found", "absent"]
    assert {item["version"] for item in told} == {client.PROTOCOL}


def test_an_error_comes_with_its_code_its_fact_and_what_to_do() -> None:
    answer = protocol.failed(StorageUnavailable("no answer\nfor 2 min"))
    told = json.loads(answer.line)
    assert answer.line.count(b"\n") == 1
    assert (told["status"], told["code"]) == (75, "storage-unavailable")
    assert (told["fact"], told["hint"]) == ("no answer\nfor 2 min", StorageUnavailable.hint)


def test_a_line_comes_with_its_descriptor(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    file = os.memfd_create("file")
    os.write(file, b"content")
    protocol.send(theirs, protocol.Answer(b"li", file))
    protocol.send(theirs, protocol.Answer(b"ne\n"))
    received = protocol.receive(ours)
    assert received.line == b"line\n"
    assert received.descriptor is not None
    assert os.pread(received.descriptor, 100, 0) == b"content"
    os.close(received.descriptor)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file)  # sent, so closed here


def test_whoever_says_too_much_too_little_or_nothing_is_refused_and_leaves_nothing_open(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    before = open_descriptors()
    ours.settimeout(0.05)
    with pytest.raises(protocol.WalRequestInvalid, match="says nothing"):
        protocol.receive(ours)
    file = os.memfd_create("file")
    socket.send_fds(theirs, [b"a"], [file])
    socket.send_fds(theirs, [b"b\n"], [file])
    with pytest.raises(protocol.WalRequestInvalid, match="2 descriptors"):
        protocol.receive(ours)
    socket.send_fds(theirs, [b"half"], [file])
    os.close(file)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(protocol.WalRequestInvalid, match="4 bytes"):
        protocol.receive(ours)
    assert open_descriptors() == before
    theirs.close()
    protocol.send(ours, protocol.DONE)  # nobody there: no error


def test_an_endless_line_is_cut_off(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.setblocking(False)
    sent = 0
    while sent <= client.MAX_LINE:
        sent += theirs.send(b"x" * 4096)
    with pytest.raises(protocol.WalRequestInvalid, match="no line"):
        protocol.receive(ours)
