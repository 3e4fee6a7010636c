"""A WAL receiver behind a server that writes as fast as it can, and one that has to catch up.

Durable is what the receiver reports as flushed: pg_stat_replication says so, asked again and again
beside the position that the server has written.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local.benchmark import pgkeep
from local.benchmark.measure import ContenderFailed, cpu_of_machine, run_measured
from local.benchmark.place import Place, fresh_emulator
from local.benchmark.wal.report import Moved
from local.benchmark.wal.supply import SEGMENT, Supply, write_wal
from local.postgres_server import PostgresServer
from local.processes import Program, program, wait_until

_EVERY_S = 0.01
_LIMIT_S = 600.0
_STREAMING_S = 30.0
_POSITIONS = """
    select pg_current_wal_flush_lsn() - '0/0', coalesce(max(flush_lsn) - '0/0', 0)
    from pg_stat_replication where state in ('streaming', 'catchup')
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """Byte positions at a time of the monotonic clock."""

    at: float
    written: int
    durable: int


@dataclass(slots=True)
class _Watch:
    """Samples of a server, taken by a thread of its own."""

    server: PostgresServer
    samples: list[Sample] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with self.server.connect() as connection:
            while not self.over.wait(_EVERY_S):
                [(written, durable)] = connection.execute(_POSITIONS).fetchall()
                self.samples.append(Sample(time.monotonic(), int(written), int(durable)))

    @property
    def durable(self) -> int:
        return self.samples[-1].durable if self.samples else 0


def measure_receiver(place: Place, supply: Supply, segments: int) -> tuple[Moved, Moved]:
    """While the server writes so many segments, and once more after it wrote them alone."""
    with fresh_emulator(2 * segments * SEGMENT) as (storage, _):
        writer, _reader = pgkeep.configure(place, supply.server, storage)
        log = place.work / "pgkeep-wal.log"
        run_measured(pgkeep.verb("backup", pgkeep.CLUSTER, config=writer), {}, log)
        with _receiver(place, supply.server, writer) as receiver:
            live = _live(supply.server, receiver, segments)
        write_wal(supply.server, segments)
        return live, _catch_up(place, supply.server, writer)


def delays(samples: Sequence[Sample], first: int, last: int) -> list[float]:
    """For each end of a segment in (first, last]: from written to durable, in seconds."""
    ends = range((first // SEGMENT + 1) * SEGMENT, last + 1, SEGMENT)
    written = _reached(samples, ends, [sample.written for sample in samples])
    durable = _reached(samples, ends, [sample.durable for sample in samples])
    return [after - before for before, after in zip(written, durable, strict=True)]


def _reached(samples: Sequence[Sample], ends: Sequence[int], positions: list[int]) -> list[float]:
    times, index = list[float](), 0
    for end in ends:
        while positions[index] < end:
            index += 1
        times.append(samples[index].at)
    return times


def _live(server: PostgresServer, receiver: Program, segments: int) -> Moved:
    with _watched(server) as watch:
        first, started, cpu = _written(server), time.monotonic(), cpu_of_machine()
        write_wal(server, segments)
        last, behind = _written(server), _written(server) - watch.durable
        _await_durable(watch, last, receiver)
    wall, busy = watch.samples[-1].at - started, cpu_of_machine() - cpu
    return Moved(wall, busy, delays(watch.samples, first, last), behind_bytes=max(0, behind))


def _catch_up(place: Place, server: PostgresServer, writer: Path) -> Moved:
    """From the receiver's start, which it takes a second for, to the last segment."""
    with _watched(server) as watch:
        last, started, cpu = _written(server), time.monotonic(), cpu_of_machine()
        with _receiver(place, server, writer) as receiver:
            _await_durable(watch, last, receiver)
    return Moved(watch.samples[-1].at - started, cpu_of_machine() - cpu)


@contextmanager
def _receiver(place: Place, server: PostgresServer, writer: Path) -> Iterator[Program]:
    command = pgkeep.verb("wal", "receive", pgkeep.CLUSTER, config=writer)
    with program(command.arguments, place.work / "receive.log") as receiver:

        def streams() -> bool:
            receiver.check()
            return bool(server.query("select 1 from pg_stat_replication"))

        if not wait_until(streams, _STREAMING_S):
            raise ContenderFailed(f"the receiver does not stream: {receiver.last_words()}")
        yield receiver


@contextmanager
def _watched(server: PostgresServer) -> Iterator[_Watch]:
    watch = _Watch(server)
    thread = threading.Thread(target=watch.run, name="wal-watch")
    thread.start()
    try:
        yield watch
    finally:
        watch.over.set()
        thread.join()


def _await_durable(watch: _Watch, last: int, receiver: Program) -> None:
    def durable() -> bool:
        receiver.check()
        return watch.durable >= last

    if not wait_until(durable, _LIMIT_S):
        raise ContenderFailed(f"the receiver did not come to the end: {receiver.last_words()}")


def _written(server: PostgresServer) -> int:
    [(position,)] = server.query("select pg_current_wal_flush_lsn() - '0/0'")
    return int(position)
