"""Giving WAL to PostgreSQL: found, proven absent, or an error; never one for the other.

"Absent" ends a recovery and opens the database, so it is said only when storage itself said so,
nobody promised the file, and the archive holds nothing of the timeline behind it (trap 31, R21).
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.wal_segment import WalFileKind, WalFileName, segment_name, segment_start
from shared.errors import ClusterUnknown, Corrupt, PgkeepError
from shared.event_log import log_event
from shared.repository.backups import read_cluster
from worker.commands.services import Clocks, Services
from worker.commands.wal_holes import is_before_more
from worker.commands.wal_prefetch import Prefetcher
from worker.commands.wal_reader import ReadSegment, WalAbsent, WalReader
from worker.commands.wal_spool import Spool, open_spool

# Segments may be stored out of order: what is missing now may only be on its way.
HOLE_PATIENCE_S: Final = 5.0
_HOLE_LOOK_S: Final = 0.5
# A history of nothing, as timeline.c reads it: all that is known is that the number is taken.
_TAKEN: Final = b"# pgkeep: the archive's file of this name cannot be read\n"


class WalHole(Corrupt):
    """A segment is not all there, and the archive holds WAL behind it."""

    code = "wal-hole"
    hint = (
        "Recover to a target before it, or from a backup behind it; the runbook on gaps in the "
        "WAL says how to look for the segment."
    )


class WalPromisedMissing(Corrupt):
    """The archive had this file when the recovery was planned, and does not have it now."""

    code = "wal-promised-missing"
    hint = "Look at who deletes from the container `wal`; plan again to see what can be reached."


@dataclass(frozen=True, slots=True)
class FetchStatistics:
    """`segments` and `bytes` that PostgreSQL was given, and the seconds that it waited for us.

    `hits` came out of the spool, `misses` were read while it waited. `end_seen_at`: when the end of
    the archive was first met, so what was stored later is not part of what was given.
    """

    segments: int = 0
    bytes: int = 0
    waited_s: float = 0.0
    hits: int = 0
    misses: int = 0
    end_seen_at: datetime | None = None


class Fetcher:
    """Answers for one cluster. Safe to use from several threads."""

    def __init__(
        self,
        reader: WalReader,
        is_before_more: Callable[[WalFileName], bool],
        spool: Spool,
        prefetcher: Prefetcher,
        clocks: Clocks,
        promised: Sequence[str] = (),
        timeline: int | None = None,
    ) -> None:
        """`promised`: files that exist, says the plan, in the order in which they are needed.
        `timeline`: where it leads.
        """
        self._reader = reader
        self._is_before_more = is_before_more
        self._spool = spool
        self._prefetcher = prefetcher
        self._clocks = clocks
        self._promised = tuple(promised)
        self._timeline = timeline
        self._places = {name: place for place, name in enumerate(promised)}
        self._statistics = FetchStatistics()
        self._ends: dict[WalFileName, datetime] = {}
        self._failure: PgkeepError | None = None
        self._lock = threading.Lock()
        prefetcher.aim(self._promised)

    def statistics(self) -> FetchStatistics:
        with self._lock:
            return replace(self._statistics, end_seen_at=max(self._ends.values(), default=None))

    def failure(self) -> PgkeepError | None:
        """What the newest call that failed raised."""
        return self._failure

    def fetch(self, text: str) -> int | None:
        """A descriptor to read the file from, the caller's to close; None when proven absent.

        Raises WalFileNameInvalid, WalHole, WalPromisedMissing, SpoolUnavailable, and what
        WalReader raises but for WalAbsent.
        """
        with self._timed():
            name = WalFileName.parse(text)
            if name.kind is not WalFileKind.SEGMENT:
                return self._small(name)
            if self._came_with_the_backup(name):
                return None
            ready = self._prefetcher.take(text)
            descriptor = self._read_now(name) if ready is None else ready
            if descriptor is not None:
                self._count(descriptor, hit=ready is not None)
                size = os.fstat(descriptor).st_size
                self._prefetcher.aim(self._following(name, size), size)
            return descriptor

    def _small(self, name: WalFileName) -> int | None:
        """History files above all: PostgreSQL asks for those that do not exist, and often."""
        try:
            content = self._reader.read(name)
        except WalAbsent:
            self._require_unpromised(name)
            return None
        except Corrupt as error:
            if not self._is_only_counted(name):
                raise
            log_event("history-replaced", level=logging.WARNING, name=str(name), code=error.code)
            content = _TAKEN
        return self._spool.pass_through(str(name), content)

    def _is_only_counted(self, name: WalFileName) -> bool:
        """Of other timelines than the plan's PostgreSQL asks whether they exist, so as to take a
        number that is free; junk under such a name shall not end a recovery that it has no part in.
        """
        another = self._timeline not in {None, name.timeline}
        return another and name.kind is WalFileKind.HISTORY

    def _read_now(self, name: WalFileName) -> int | None:
        deadline = self._clocks.monotonic() + HOLE_PATIENCE_S
        segment = self._read(name)
        while self._is_hole(name, segment):
            if self._clocks.monotonic() > deadline:
                state = "incomplete" if segment else "missing"
                raise WalHole(f"{name} is {state}, and later WAL of its timeline is there")
            threading.Event().wait(_HOLE_LOOK_S)
            segment = self._read(name)
        if segment is None:
            return None
        return self._spool.pass_through(str(name), segment.content)

    def _came_with_the_backup(self, name: WalFileName) -> bool:
        """A plan does without files before the first that it promises: the backup brought them,
        and what the archive has of one may be less.
        """
        if not self._promised or str(name) in self._places:
            return False
        first = WalFileName.parse(self._promised[0])
        return (name.log, name.segment) < (first.log, first.segment)

    def _is_hole(self, name: WalFileName, segment: ReadSegment | None) -> bool:
        if segment is None:
            self._require_unpromised(name)
        elif segment.complete or self._promised[-1:] == (str(name),):
            return False
        if self._promised and str(name) not in self._places:
            return False  # behind what the plan needs; the replay looks ahead
        return self._is_before_more(name)

    def _read(self, name: WalFileName) -> ReadSegment | None:
        asked_at = self._clocks.now()
        try:
            segment = self._reader.read_segment(name)
        except WalAbsent:
            segment = None
        if segment is None or not segment.complete:
            # PostgreSQL asks for the last segment once more, and replays nothing of it then.
            self._ends.setdefault(name, asked_at)
        return segment

    def _require_unpromised(self, name: WalFileName) -> None:
        if str(name) in self._places:
            raise WalPromisedMissing(f"{name} was part of the plan, and is gone")

    def _following(self, name: WalFileName, size: int) -> Iterator[str]:
        place = self._places.get(str(name))
        if place is not None:
            return iter(self._promised[place + 1 :])
        start = segment_start(name, size)
        return (segment_name(name.timeline, start + number * size, size) for number in count(1))

    def _count(self, descriptor: int, *, hit: bool) -> None:
        size = os.fstat(descriptor).st_size
        with self._lock:
            known = self._statistics
            self._statistics = replace(
                known,
                segments=known.segments + 1,
                bytes=known.bytes + size,
                hits=known.hits + hit,
                misses=known.misses + (not hit),
            )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = self._clocks.monotonic()
        try:
            yield
        except PgkeepError as error:
            self._failure = error
            raise
        finally:
            with self._lock:
                waited = self._statistics.waited_s + self._clocks.monotonic() - began
                self._statistics = replace(self._statistics, waited_s=waited)


@contextmanager
def fetching(
    services: Services,
    cluster: ClusterName,
    spool: Path,
    promised: Sequence[str] = (),
    timeline: int | None = None,
) -> Iterator[Fetcher]:
    """A fetcher with a spool below the folder `spool`. Raises ClusterUnknown, SpoolRefused."""
    document = read_cluster(services.store, cluster, services.pinned)
    if document is None:
        raise ClusterUnknown(f"the repository knows no cluster {cluster}")
    reader, wal = WalReader(services, document), services.settings.wal
    look_behind = partial(is_before_more, services.store, cluster)
    with open_spool(spool, services.random(8).hex()) as folder:
        prefetcher = Prefetcher(
            reader.read_segment, folder, parallel=wal.parallel, limit=wal.prefetch_bytes
        )
        with closing(prefetcher):
            yield Fetcher(
                *(reader, look_behind, folder, prefetcher, services.clocks),
                promised=promised,
                timeline=timeline,
            )
