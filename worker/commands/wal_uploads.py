"""Storing received WAL beside its reception: some stretches at a time, and one tail.

Whoever receives asks here what has become durable; a doorbell wakes it when that changes.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from worker.commands.received_segment import Portion
from worker.commands.wal_archive import PIECE_MAX

# How long the end of a session waits for what is under way; it is in the archive then, for the
# next session to find.
_LAST_PUTS_S: Final = 20.0
# PostgreSQL's default segment: `[wal] parallel` counts stretches of this size.
_USUAL_SIZE: Final = 16 << 20

Store = Callable[[Portion], datetime | None]
"""Makes a portion durable; tells the time of the last commit in it."""


@dataclass(frozen=True, slots=True)
class Durable:
    """A portion that is in the archive."""

    portion: Portion
    last_commit: datetime | None


def puts_at_once(parallel: int, segment_size: int) -> int:
    """Stretches that may be under way: of larger segments fewer, so that the bytes are bounded."""
    stretch = min(segment_size, PIECE_MAX)
    return max(1, min(parallel, parallel * _USUAL_SIZE // stretch))


class Uploads:
    """`parallel` stretches (see `puts_at_once`) and one tail may be under way; not thread-safe."""

    def __init__(self, store: Store, parallel: int, ring: Callable[[], None]) -> None:
        self._store = store
        self._parallel = parallel
        self._ring = ring
        self._pool = ThreadPoolExecutor(parallel + 1, thread_name_prefix="pgkeep-wal-put")
        self._stretches: set[Future[Durable]] = set()
        self._tail: Future[Durable] | None = None

    @property
    def has_room(self) -> bool:
        """For one more stretch."""
        return len(self._stretches) < self._parallel

    @property
    def tail_under_way(self) -> bool:
        return self._tail is not None

    @property
    def idle(self) -> bool:
        return not self._stretches and self._tail is None

    def put(self, stretch: Portion) -> None:
        """Ask `has_room` before."""
        self._stretches.add(self._submit(stretch))

    def put_tail(self, tail: Portion) -> None:
        """Ask `tail_under_way` before."""
        self._tail = self._submit(tail)

    def collect(self) -> list[Durable]:
        """What has become durable since the last call. Raises what storing a portion raised."""
        done = {future for future in self._under_way() if future.done()}
        self._stretches -= done
        if self._tail in done:
            self._tail = None
        return [future.result() for future in done]

    def close(self) -> None:
        """What has not begun is forgotten; what is under way is waited for, but not for ever."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([future for future in self._under_way() if not future.cancelled()], _LAST_PUTS_S)

    def _under_way(self) -> set[Future[Durable]]:
        return self._stretches | ({self._tail} if self._tail else set())

    def _submit(self, portion: Portion) -> Future[Durable]:
        future = self._pool.submit(self._make_durable, portion)
        future.add_done_callback(lambda _: self._ring())
        return future

    def _make_durable(self, portion: Portion) -> Durable:
        return Durable(portion, self._store(portion))
