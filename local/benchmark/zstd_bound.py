"""What zstd alone costs: the cluster's files through two threads, to nowhere: a backup's bound.

`python -m local.benchmark.zstd_bound DATA LEVEL THREADS` prints the compressed size.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import zstandard

from local.benchmark.measure import Command, Usage, run_measured
from local.benchmark.place import COMPRESSION_LEVEL, PARALLEL, Place, environment
from local.postgres_server import PostgresServer

_FRAME = 4 << 20


def measure(place: Place, source: PostgresServer) -> tuple[Usage, int]:
    """The usage, and the bytes that came out."""
    words = [str(source.data), str(COMPRESSION_LEVEL), str(PARALLEL)]
    command = Command([sys.executable, "-m", __name__, *words], environment())
    done = run_measured(command, {}, place.work / "zstd.log")
    return done.usage, int(done.output)


def compressed_size(data: Path, level: int, threads: int) -> int:
    """Frames as a backup cuts them, compressed in parallel."""
    with ThreadPoolExecutor(threads) as executor:
        total, pending = 0, deque[Future[int]]()
        for frame in _frames(data):
            if len(pending) > threads:
                total += pending.popleft().result()
            pending.append(executor.submit(_compress, frame, level))
        return total + sum(future.result() for future in pending)


def _compress(frame: bytes, level: int) -> int:
    return len(zstandard.ZstdCompressor(level, write_checksum=True).compress(frame))


def _frames(data: Path) -> Iterator[bytes]:
    for path in sorted(data.rglob("*")):
        if path.is_file() and "pg_wal" not in path.parts:
            with path.open("rb") as file:
                while frame := file.read(_FRAME):
                    yield frame


if __name__ == "__main__":
    print(compressed_size(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
