"""A throw-away PostgreSQL server on a restored data directory, which may be hostile.

Starting a server trusts whoever was superuser on the source. So everything that runs a program,
loads a library or reaches a network is overridden on the command line, which beats both
configuration files; the main one, pg_hba.conf and pg_ident.conf are ours; the only listener is a
socket in a directory of mode 0700. ALTER DATABASE/ROLE ... SET beats the command line, and is
beaten by connection options: sessions must be opened with `connect_instance`.
This contains accidents and plants, not an attacker who is superuser: the sandbox proper is the
container around it (own uid, no network, no Azure identity). No network namespace is made here.
Against code that runs all the same, this process closes itself to others of its user
(`process_shield`), and reads nothing through links of the server's making.

Every instance lives in a directory of its own with a marker file; `sweep_leftovers` removes what a
crashed drill left, by marker and age, never by a pattern of names or processes.
"""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from signal import SIGINT, SIGKILL, SIGQUIT
from threading import Event
from typing import BinaryIO, Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from shared.errors import (
    InstanceLacksLibrary,
    InstanceNotStarted,
    InstanceStarved,
    InstanceTimeout,
    PgkeepError,
    ProgramMissing,
    Unavailable,
)
from worker.postgres.connection import connect_sql
from worker.postgres.process_shield import close_to_others, without_cores, without_new_rights
from worker.postgres.programs import ENVIRONMENT, Account, ControlData, Programs
from worker.postgres.sandbox import DEFAULT_SIZING, PORT, SESSION_OPTIONS, Sizing, sandbox
from worker.postgres.scratch import Scratch, read_tail

POLL_S: Final = 0.05
STOP_TIMEOUT_S: Final = 60
LOG_TAIL_LINES: Final = 12
LOG_TAIL_BYTES: Final = 64 << 10
_HBA: Final = "local all all trust\n"

# Words of the server's log (English, because lc_messages is C) that tell why it ended.
_STARVED_WORDS: Final = (
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "out of memory",
    "could not map anonymous shared memory",
    "could not create shared memory segment",
    "could not resize shared memory segment",
    "was terminated by signal 9",  # the kernel, short of memory
)
_LIBRARY_WORDS: Final = (
    "could not load library",
    "could not access file",
    "database locale is incompatible",
    "invalid value for parameter",
    "resource manager with ID",
    "unrecognized configuration parameter",
    "database files are incompatible with server",
    "insufficient parameter settings",
)


@dataclass(frozen=True, slots=True)
class Instance:
    """A server that we started and have not reaped yet: its process id cannot mean another one."""

    scratch: Scratch
    programs: Programs
    account: Account | None
    superuser: str
    process: subprocess.Popen[bytes]
    started: float

    @property
    def running(self) -> bool:
        return self.process.poll() is None


@dataclass(frozen=True, slots=True)
class Opening:
    """Seconds after the start: first connection (consistent), recovery over, first query done."""

    consistent_s: float
    recovered_s: float
    first_query_s: float


@contextmanager
def running_instance(
    scratch: Scratch,
    programs: Programs,
    control: ControlData,
    *,
    account: Account | None,
    superuser: str,
    sizing: Sizing = DEFAULT_SIZING,
) -> Iterator[Instance]:
    """Start the server on `scratch.data`, and stop it at once whatever happens.

    Does not wait: `wait_until_open` does. `control` is the restored pg_control's.
    """
    scratch.write("postgresql.conf", "# everything is on the command line\n", account)
    scratch.write("pg_hba.conf", _HBA, account)
    scratch.write("pg_ident.conf", "", account)
    arguments = [programs.path("postgres"), "-D", str(scratch.data)]
    for name, value in sandbox(scratch, programs, control, sizing).items():
        arguments += ["-c", f"{name}={value}"]
    instance = _start(arguments, scratch, programs, account, superuser)
    try:
        yield instance
    finally:
        stop_at_once(instance)


def wait_until_open(
    instance: Instance,
    database: str,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> Opening:
    """Until recovery is over and a query runs.

    Raises InstanceNotStarted, InstanceLacksLibrary or InstanceStarved as soon as the server ends,
    with its last log lines; InstanceTimeout when it is not open in `timeout` seconds.
    """
    deadline = instance.started + timeout
    connection = _first_connection(instance, database, deadline, clock)
    consistent = clock() - instance.started
    with connection:
        _wait_for_end_of_recovery(instance, connection, deadline, clock)
        recovered = clock() - instance.started
        connection.execute("SELECT count(*) FROM pg_catalog.pg_class")
        return Opening(consistent, recovered, clock() - instance.started)


def connect_instance(
    instance: Instance, database: str, *, user: str | None = None, options: Sequence[str] = ()
) -> psycopg.Connection[TupleRow]:
    """An autocommit session of the superuser or of a `user` who was granted what SESSION_OPTIONS
    set; more `options` read `-c name=value`.
    """
    conninfo = make_conninfo(
        host=str(instance.scratch.socket),
        port=PORT,
        user=user or instance.superuser,
        dbname=database,
        options=" ".join([SESSION_OPTIONS, *options]),
    )
    return connect_sql(conninfo, application_name="pgkeep-drill")


def stop_cleanly(instance: Instance, *, timeout: float = STOP_TIMEOUT_S) -> bool:
    """Fast shutdown with a checkpoint; whether that is how it ended. If it hangs, it is killed."""
    if not instance.running:
        return False
    instance.process.send_signal(SIGINT)
    try:
        return instance.process.wait(timeout) == 0
    except subprocess.TimeoutExpired:
        stop_at_once(instance)
        return False


def stop_at_once(instance: Instance, *, timeout: float = STOP_TIMEOUT_S) -> None:
    """Immediate shutdown, then kill; harmless when it has ended."""
    for stop_signal in (SIGQUIT, SIGKILL):
        if not instance.running:
            break
        instance.process.send_signal(stop_signal)
        try:
            instance.process.wait(timeout)
        except subprocess.TimeoutExpired:
            continue


def last_log_lines(scratch: Scratch) -> str:
    """What the server said last, on one line."""
    try:
        text = read_tail(scratch.log, LOG_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return "no log"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-LOG_TAIL_LINES:]) or "the log is empty"


def why_it_ended(instance: Instance, how: str) -> PgkeepError:
    """By its log: short of room, short of a part this host lacks, or something about the data."""
    words = last_log_lines(instance.scratch)
    fact = f"the restored cluster did not open ({how}): {words}"
    killed = instance.process.returncode == -SIGKILL  # idem
    if killed or any(word in words for word in _STARVED_WORDS):
        return InstanceStarved(fact)
    if any(word in words for word in _LIBRARY_WORDS):
        return InstanceLacksLibrary(fact)
    return InstanceNotStarted(fact)


def _start(
    arguments: Sequence[str],
    scratch: Scratch,
    programs: Programs,
    account: Account | None,
    superuser: str,
) -> Instance:
    close_to_others()
    with scratch.open_log() as log:
        try:
            process = without_new_rights(partial(_spawn, arguments, log, account))
        except OSError as error:
            raise ProgramMissing(f"cannot run {arguments[0]}: {error.strerror}") from None
    without_cores(process.pid)
    return Instance(scratch, programs, account, superuser, process, time.monotonic())


def _spawn(
    arguments: Sequence[str], log: BinaryIO, account: Account | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - an argument list; the program is Programs'
        list(arguments),
        cwd="/",
        env=dict(ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        close_fds=True,
        start_new_session=True,  # a signal to our terminal is not one to the server
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        umask=0o077,
    )


def _first_connection(
    instance: Instance, database: str, deadline: float, clock: Callable[[], float]
) -> psycopg.Connection[TupleRow]:
    while True:
        _require_alive(instance)
        try:
            return connect_instance(instance, database)
        except Unavailable as error:
            _require_time(instance, deadline, clock, error.fact)
        Event().wait(POLL_S)


def _wait_for_end_of_recovery(
    instance: Instance,
    connection: psycopg.Connection[TupleRow],
    deadline: float,
    clock: Callable[[], float],
) -> None:
    while _in_recovery(instance, connection):
        _require_time(instance, deadline, clock, "still in recovery")
        Event().wait(POLL_S)


def _in_recovery(instance: Instance, connection: psycopg.Connection[TupleRow]) -> bool:
    try:
        row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
    except psycopg.Error as error:
        instance.process.wait(STOP_TIMEOUT_S)
        raise why_it_ended(instance, str(error)) from None
    return row is None or bool(row[0])


def _require_alive(instance: Instance) -> None:
    if not instance.running:
        raise why_it_ended(instance, f"exit status {instance.process.returncode}")


def _require_time(
    instance: Instance, deadline: float, clock: Callable[[], float], state: str
) -> None:
    if clock() < deadline:
        return
    _require_alive(instance)
    seconds = deadline - instance.started
    raise InstanceTimeout(
        f"the restored cluster is not open after {seconds:.0f} s: {state}; "
        f"the log ends with: {last_log_lines(instance.scratch)}"
    )
