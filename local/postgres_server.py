"""A PostgreSQL server on this machine: start, wait until it answers, stop, kill, ask."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString, Self

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from local import orphan_guard, unprivileged
from local.free_port import free_port
from local.postgres_initdb import (
    SUPERUSER,
    ClusterOptions,
    append_settings,
    clean_environment,
    create_cluster,
    major_of,
    read_passfile,
)
from shared.errors import Unavailable

_PORT_ATTEMPTS = 5
_POLL_S = 0.01
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 60.0
# Line 8 of postmaster.pid tells the server's state (LOCK_FILE_LINE_PM_STATUS of miscadmin.h).
_STATUS_LINE = 7
_OPEN = "ready"
_ANSWERING = (_OPEN, "standby")
_PORT_TAKEN = "could not create any TCP/IP sockets"
# sun_path of unix(7) has 108 bytes with the closing zero; the rest is /.s.PGSQL.<port>.lock
_LONGEST_SOCKET_DIRECTORY = 107 - len("/.s.PGSQL.65535.lock")
_LOG_TAIL = 2_000  # characters of the server's log that an error quotes


class PostgresServerFailed(Unavailable):
    """A server of the local stack did not start or stop."""

    code = "postgres-server-failed"
    hint = "The message ends with the last lines of the server's log."


class StopMode(Enum):
    """How the postmaster shuts down, and the signal that says so."""

    SMART = signal.SIGTERM
    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT


class _Outcome(Enum):
    ANSWERS = "it answers"
    PORT_TAKEN = "its port is taken"
    ENDED = "it ended"
    TOO_SLOW = "it took too long"


class PostgresServer:
    """One cluster in `directory`/data and, while it runs, its postmaster.

    The port is kept from start to start unless another program takes it in between. Not
    thread-safe. As a context manager it starts on entry and stops, fast, on exit.
    """

    def __init__(
        self, programs: Path, directory: Path, passwords: Mapping[str, str] | None = None
    ) -> None:
        """For a restored data directory give the `passwords` of the cluster it came from."""
        self.programs = programs
        self.directory = directory
        self.data = directory / "data"
        self.log_path = directory / "server.log"
        self.passwords = dict(passwords or read_passfile(directory / "passfile"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    @classmethod
    def create(cls, programs: Path, directory: Path, options: ClusterOptions | None = None) -> Self:
        """A new cluster, not started; `directory` may exist but must not hold one."""
        create_cluster(programs, directory, options or ClusterOptions())
        return cls(programs, directory)

    @property
    def major(self) -> int:
        return major_of(self.data)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def is_open(self) -> bool:
        """Whether it takes writes: it is no standby, and no longer in recovery."""
        return self.running and self._status() == _OPEN

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        if self._process is None:
            raise PostgresServerFailed(f"the server in {str(self.directory)!r} does not run")
        return self._process.pid

    @property
    def passfile(self) -> Path:
        """For libpq's `passfile`; absent beside a restored data directory."""
        return self.directory / "passfile"

    @property
    def socket_directory(self) -> Path:
        """Where the Unix socket lies while the server runs."""
        if self._sockets is None:
            raise PostgresServerFailed(f"the server in {str(self.directory)!r} does not run")
        return self._sockets

    def configure(self, settings: Mapping[str, str]) -> None:
        """Add to postgresql.conf; takes effect with the next start or `reload`."""
        append_settings(self.data, settings)

    def reload(self) -> None:
        """Have the server read its configuration again; it does so soon after."""
        psutil.Process(self.pid).send_signal(signal.SIGHUP)

    def start(self, timeout_s: float = _START_LIMIT_S) -> None:
        """Return when the server answers queries: as a primary, or as a hot standby.

        Raises PostgresServerFailed, with the log's end, when it ends or takes too long.
        """
        if self.running:
            raise PostgresServerFailed(f"the server in {str(self.directory)!r} runs already")
        self._put_down()  # whatever an end of its own left behind
        self._hand_over_data()
        outcome = self._start_once(timeout_s)
        for _ in range(_PORT_ATTEMPTS):
            if outcome is not _Outcome.PORT_TAKEN:
                break
            self._put_down()
            self.port = free_port()
            outcome = self._start_once(timeout_s)
        if outcome is not _Outcome.ANSWERS:
            self.kill()
            raise PostgresServerFailed(
                f"PostgreSQL did not start ({outcome.value}): {self.log()[-_LOG_TAIL:]}"
            )

    def stop(self, mode: StopMode = StopMode.FAST, timeout_s: float = _STOP_LIMIT_S) -> None:
        """Shut down in order; nothing happens if it does not run. Kills it if it takes too long."""
        if self._process is not None and self.running:
            self._process.send_signal(mode.value)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise PostgresServerFailed(
                    f"PostgreSQL did not stop in {timeout_s:g} s: {self.log()[-_LOG_TAIL:]}"
                ) from None
        self._put_down()

    def kill(self) -> None:
        """SIGKILL for the postmaster and all of its children at once, as if the machine died."""
        if self._process is not None and self.running:
            postmaster = psutil.Process(self._process.pid)
            children = postmaster.children(recursive=True)
            for process in (postmaster, *children):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait(_STOP_LIMIT_S)
            _wait_until_dead(children)
        self._put_down()

    def dsn(self, dbname: str = "postgres", user: str = SUPERUSER) -> str:
        """A connection string over TCP, with the user's password if it is one of ours."""
        address = {"host": "127.0.0.1", "port": str(self.port)}
        return make_conninfo(
            "", **address, dbname=dbname, user=user, password=self.passwords.get(user)
        )

    def connect(self, dbname: str = "postgres", user: str = SUPERUSER) -> psycopg.Connection:
        """An autocommit connection; the caller closes it."""
        return psycopg.connect(self.dsn(dbname, user), autocommit=True)

    def query(self, sql: LiteralString, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; the rows, or none if it yields none."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        """Everything that the server has logged, over all of its starts."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _hand_over_data(self) -> None:
        """A restored data directory belongs to whoever restored it; PostgreSQL wants its own."""
        account = unprivileged.server_account()
        unprivileged.make_reachable_directory(self.directory, account)
        if account is not None and self.data.stat().st_uid != account.uid:
            unprivileged.hand_over(self.data, account)

    def _start_once(self, timeout_s: float) -> _Outcome:
        log_start = len(self.log())
        self._launch()
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if not self.running:
                taken = _PORT_TAKEN in self.log()[log_start:]
                return _Outcome.PORT_TAKEN if taken else _Outcome.ENDED
            if time.monotonic() > deadline:
                return _Outcome.TOO_SLOW
            self._wait_for_end(_POLL_S)
        return _Outcome.ANSWERS

    def _launch(self) -> None:
        account = unprivileged.server_account()
        self._sockets = _make_socket_directory(self.directory, account)
        command = [
            str(self.programs / "postgres"),
            *("-D", str(self.data)),
            # Here, not in postgresql.conf: a restored copy must not inherit them.
            *("-c", "listen_addresses=127.0.0.1"),
            *("-c", f"port={self.port}"),
            *("-c", f"unix_socket_directories={self._sockets}"),
        ]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=clean_environment(),
                start_new_session=True,  # Ctrl-C at the terminal is for us to pass on
                **unprivileged.identity(account),
            )
        orphan_guard.watch(self._process.pid, signal.SIGQUIT)

    def _answers(self) -> bool:
        return self._status() in _ANSWERING

    def _status(self) -> str:
        """As the postmaster calls it; empty until there is one of this start."""
        try:
            lines = (self.data / "postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return ""
        if len(lines) <= _STATUS_LINE or lines[0] != str(self.pid):
            return ""
        return lines[_STATUS_LINE].strip()

    def _wait_for_end(self, seconds: float) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def _put_down(self) -> None:
        """Forget the process that has ended, and remove its socket directory."""
        if self._process is not None:
            orphan_guard.forget(self._process.pid)
            self._process = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None


def _make_socket_directory(directory: Path, account: unprivileged.Account | None) -> Path:
    """A private one, in `directory` unless its path is too long for a socket's address."""
    path = directory.resolve() / "sockets"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_DIRECTORY:
        path.mkdir(0o700, exist_ok=True)
    else:
        path = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    unprivileged.hand_over(path, account)
    return path


def _wait_until_dead(children: list[psutil.Process]) -> None:
    """A new postmaster refuses to start while one of them still holds the old shared memory.

    A zombie holds none, and in a container it may stay one: not every process 1 reaps orphans.
    """
    pause, deadline = threading.Event(), time.monotonic() + _STOP_LIMIT_S
    while any(map(_lives, children)) and time.monotonic() < deadline:
        pause.wait(_POLL_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
