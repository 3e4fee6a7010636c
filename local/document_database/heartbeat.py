"""A row with the time, every second: what a recovery lost is the time since the newest it holds."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files

import psycopg

TABLE = "public.heartbeat"
EVERY_S = 1.0


@dataclass(slots=True)
class Pulse:
    """`acknowledged` is the number of the newest row whose commit has returned."""

    acknowledged: int = 0


def create_heartbeat(connection: psycopg.Connection) -> None:
    """Make the empty table."""
    connection.execute((files("local.document_database") / "heartbeat.sql").read_bytes())


@contextmanager
def beating(conninfo: str, *, every_s: float = EVERY_S) -> Iterator[Pulse]:
    """Add a row again and again, from a thread, until the block ends; the server may go and come.

    Each row is a transaction, with the time a moment before its commit.
    """
    stop, pulse = threading.Event(), Pulse()
    thread = threading.Thread(target=_beat, args=(conninfo, every_s, stop, pulse), name="heartbeat")
    thread.start()
    try:
        yield pulse
    finally:
        stop.set()
        thread.join()


def _beat(conninfo: str, every_s: float, stop: threading.Event, pulse: Pulse) -> None:
    while not stop.is_set():
        with suppress(psycopg.OperationalError):
            _beat_while_connected(conninfo, every_s, stop, pulse)
        stop.wait(every_s)


def _beat_while_connected(
    conninfo: str, every_s: float, stop: threading.Event, pulse: Pulse
) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while not stop.is_set():
            inserted = connection.execute("insert into heartbeat default values returning id")
            for (number,) in inserted:
                pulse.acknowledged = number
            stop.wait(every_s)
