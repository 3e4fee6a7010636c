#!/usr/bin/python3 -IS
"""PostgreSQL's side of the WAL agent: asks it to store a segment, or for one that is stored.

    archive_command = 'pgkeep-wal push %p %f || exit 1'
    restore_command = 'pgkeep-wal fetch %f %p'

    pgkeep-wal [--socket S] [--timeout SECONDS] push PATH NAME
    pgkeep-wal [--socket S] [--timeout SECONDS] [--absent STATUS] [--cluster C] fetch NAME PATH

PostgreSQL runs this once a segment and reads its exit status, and nothing else: `push` ends with 0
when the segment is durable in the repository, else with 1 to 125, because 126 and above restart
the archiver uncounted. `fetch` ends with 0 when PATH is there, with 1 (or --absent) when storage
says that NAME does not exist, else with 200, because recovery takes any lower one for the end of
the WAL and opens the database; so also when the agent serves another cluster than C. It is one
file, for any Python from 3.9 on, and loads almost nothing: a start has to be cheap.
"""

# pathlib and contextlib would have to be loaded for it:
# ruff: noqa: PTH100, PTH104, PTH108, SIM105

import os
import sys
from _socket import (  # the module around it takes longer to load than all the rest
    AF_UNIX,
    CMSG_SPACE,
    SCM_RIGHTS,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

SOCKET_VARIABLE = "PGKEEP_WAL_SOCKET"
DEFAULT_SOCKET = "/run/pgkeep/wal.sock"
DEFAULT_TIMEOUT_S = 600.0

# One line of JSON each way, and with it a descriptor of the file. The three good answers are
# these very bytes, so that only a bad one needs a parser.
PROTOCOL = 1
DONE = b'{"version": 1, "outcome": "done"}\n'
FOUND = b'{"version": 1, "outcome": "found"}\n'
ABSENT = b'{"version": 1, "outcome": "absent"}\n'
MAX_LINE = 64 * 1024

PUSH_FAILED = 1
PUSH_FAILED_MAX = 125
FETCH_ABSENT = 1
FETCH_FAILED = 200

_DESCRIPTOR_BYTES = 4  # SCM_RIGHTS carries C ints
_TEMPORARY = ".pgkeep"
_AGENT_HINT = "Start `pgkeep wal agent` on this host; PostgreSQL tries again by itself."
_FAILED = {"push": PUSH_FAILED, "fetch": FETCH_FAILED}
_OPTIONS = {
    "--socket": ("socket", str),
    "--timeout": ("timeout", float),
    "--absent": ("absent", int),
    "--cluster": ("cluster", str),
}


class Trouble(Exception):
    """Whatever keeps us from a good answer. `status` 0 means the usual one."""

    def __init__(self, code: str, fact: str, hint: str, status: int = 0) -> None:
        super().__init__(code, fact, hint)
        self.status = status


class Command:
    """What the command line says."""

    def __init__(self) -> None:
        self.socket = os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET  # noqa: TID251 - the one setting of a process that reads no file
        self.timeout = DEFAULT_TIMEOUT_S
        self.absent = FETCH_ABSENT
        self.cluster = ""  # whichever the agent serves
        self.failed = FETCH_FAILED  # until the verb is known: a false "absent" would lose data
        self.words: list[str] = []


def run(arguments: list[str]) -> int:
    """The exit status; whatever happens, one that says what it means to PostgreSQL."""
    command = Command()
    try:
        _read_command(command, arguments)
        verb, first, second = command.words
        return _push(command, first, second) if verb == "push" else _fetch(command, first, second)
    except Trouble as trouble:
        _say(*trouble.args)
        pushing = command.failed == PUSH_FAILED
        return trouble.status if pushing and trouble.status else command.failed
    except BaseException as error:  # noqa: BLE001 - the process's edge: a traceback would exit 1
        _say("wal-client-crashed", repr(error), "Report it with this line and the agent's log.")
        return command.failed


def _read_command(command: Command, arguments: list[str]) -> None:
    command.words = list(arguments)
    try:
        while command.words[0].startswith("--"):
            attribute, kind = _OPTIONS[command.words.pop(0)]
            setattr(command, attribute, kind(command.words.pop(0)))
        command.failed = _FAILED[command.words[0]]
        _verb, _first, _second = command.words
    except (IndexError, KeyError, ValueError):
        hint = "pgkeep-wal [--socket S] [--timeout SECONDS] push PATH NAME | fetch NAME PATH"
        raise Trouble("wal-usage", "cannot make sense of the arguments", hint) from None


def _push(command: Command, path: str, name: str) -> int:
    source = _open_source(path)
    answer, _ = _ask(command, _request("push", name, os.path.abspath(path)), source)
    if answer != DONE:
        raise _refusal(answer)
    return 0


def _open_source(path: str) -> int:
    try:
        # Opened here, so that the agent needs no right of its own to the data directory.
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        fact = f"cannot open {os.path.abspath(path)}: {error.strerror}"
        hint = "PostgreSQL runs this in its data directory, as its own account."
        raise Trouble("wal-file-unreadable", fact, hint) from None


def _fetch(command: Command, name: str, path: str) -> int:
    request = _request("fetch", name, os.path.abspath(path), command.cluster)
    answer, source = _ask(command, request, -1)
    if answer == ABSENT:
        return command.absent
    if answer != FOUND or source < 0:
        raise _refusal(answer)
    try:
        _copy(source, path)
    except OSError as error:
        hint = "PATH must be in a directory that this account may write to, with room in it."
        raise Trouble("wal-copy-failed", f"cannot write {path}: {error}", hint) from None
    return 0


def _copy(source: int, path: str) -> None:
    """Under the real name only when it is whole: half a segment would be taken for a torn one."""
    temporary = path + _TEMPORARY
    _remove(temporary)
    target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        _send_all(source, target)
        os.close(target)
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def _send_all(source: int, target: int) -> None:
    size, offset = os.fstat(source).st_size, 0
    while offset < size:
        sent = os.sendfile(target, source, offset, size - offset)
        if sent == 0:
            raise OSError(f"only {offset} of {size} bytes came")
        offset += sent


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _request(verb: str, name: str, path: str, cluster: str = "") -> bytes:
    words = [("name", name), ("path", path)] + ([("cluster", cluster)] if cluster else [])
    values = (f'"{key}": {_quoted(text)}' for key, text in words)
    return f'{{"version": {PROTOCOL}, "verb": "{verb}", {", ".join(values)}}}\n'.encode()


def _quoted(text: str) -> str:
    """A JSON string. The json module would take as long to load as this process lives."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if " " <= character <= "~" and character not in '"\\':
        return character
    units = character.encode("utf-16-be", "replace").hex()
    return "".join("\\u" + units[start : start + 4] for start in range(0, len(units), 4))


def _ask(command: Command, request: bytes, descriptor: int) -> tuple[bytes, int]:
    """The agent's line, and the descriptor that came with it, or -1."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    connection.settimeout(command.timeout)
    try:
        connection.connect(command.socket)
        _send(connection, request, descriptor)
        return _receive(connection)
    except (OSError, ValueError) as error:
        fact = f"no answer from the agent at {command.socket}: {error}"
        raise Trouble("wal-agent-unreachable", fact, _AGENT_HINT) from None


def _send(connection: socket, request: bytes, descriptor: int) -> None:
    passed = []
    if descriptor >= 0:
        number = descriptor.to_bytes(_DESCRIPTOR_BYTES, sys.byteorder)
        passed = [(SOL_SOCKET, SCM_RIGHTS, number)]
    sent = connection.sendmsg([request], passed)
    if sent < len(request):  # else it would fail on an agent that has answered and is gone
        connection.sendall(request[sent:])


def _receive(connection: socket) -> tuple[bytes, int]:
    line, descriptor = b"", -1
    while not line.endswith(b"\n") and len(line) <= MAX_LINE:
        data, passed, _, _ = connection.recvmsg(MAX_LINE, CMSG_SPACE(_DESCRIPTOR_BYTES))
        for _, _, number in passed:
            descriptor = int.from_bytes(number[:_DESCRIPTOR_BYTES], sys.byteorder)
        if not data:
            raise OSError("it hung up before it had answered")
        line += data
    return line, descriptor


def _refusal(answer: bytes) -> Trouble:
    """`status` is for a push; a fetch knows only one."""
    import json

    try:
        told = json.loads(answer)
        status = min(max(int(told["status"]), PUSH_FAILED), PUSH_FAILED_MAX)
        return Trouble(told["code"], told["fact"], told["hint"], status)
    except (ValueError, KeyError, TypeError):
        fact = f"the agent answered {answer[:80]!r}"
        return Trouble("wal-answer-garbled", fact, "Is it of the same version as this client?")


def _say(code: str, fact: str, hint: str) -> None:
    line = " ".join(f"pgkeep-wal: {code}: {fact} (hint: {hint})".split()) + "\n"
    try:
        os.write(2, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody listens; the status says enough


if __name__ == "__main__":
    end = FETCH_FAILED
    try:
        end = run(sys.argv[1:])
    finally:
        # At once: an interpreter that is taken down in order may still fail, with its own status.
        os._exit(end)
