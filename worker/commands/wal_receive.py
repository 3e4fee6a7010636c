"""`pgkeep wal receive`: WAL over a replication slot into the repository, until told to stop.

    lease → connect → identity → histories → slot → where the archive ends → stream → …

Whatever ends a session for a reason that may pass, the next one goes on where the archive ends.
Nothing is kept on this host, and nothing that is not in the archive was ever acknowledged, so an
outage of any length loses nothing as long as the slot holds the WAL at the server.

What `synchronous` guarantees: with this receiver's application_name in synchronous_standby_names
and synchronous_commit = on (or remote_write), a commit returns only when the record of the commit
and all WAL before it are durable in the repository. Several commits share one blob. While
receiver, repository or the way to them is away, no commit returns. remote_apply is never fulfilled.

Memory: the stretch of WAL that is coming (a segment, or 64 MiB of a larger one), those under way
([wal] parallel times 16 MiB, but at least one), a tail, and what it takes to seal them. Measured
with segments of 16 MiB and parallel = 4: 200 MB beside the 80 MB of the process.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Final

from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import segment_name
from shared.errors import LeaseHeld, LeaseLost, PgkeepError, Unavailable
from shared.event_log import log_event
from shared.jobs.lease import Renewal, hold
from shared.jobs.wal_events import WalGapSeen
from shared.repository import layout
from shared.repository.documents import ClusterDocument
from shared.settings import ClusterSettings
from worker.commands.cluster_identity import register
from worker.commands.cluster_login import connect_to, conninfo_of
from worker.commands.received_segment import Portion, check
from worker.commands.services import Services
from worker.commands.wal_archive import WalArchive
from worker.commands.wal_histories import store_histories
from worker.commands.wal_measure import WalMeasure
from worker.commands.wal_position import Line, Position, ServerView, find_position, position_after
from worker.commands.wal_progress import HOST_LENGTH, ProgressReports
from worker.commands.wal_reception import Reception, Session
from worker.commands.wal_reporter import WalReporter, open_reporter
from worker.commands.wal_slot import ready_slot, warn_of_unlimited
from worker.commands.wal_uploads import Uploads, puts_at_once
from worker.postgres.connection import ReplicationConnection, connect
from worker.postgres.doorbell import Doorbell
from worker.postgres.replication import identify_system, wal_segment_size
from worker.postgres.wal_facts import oldest_segment
from worker.postgres.wal_stream import Timing, WalRemoved, WalStream

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0
_LOCK: Final = "wal-receive"


class ServerBehind(Unavailable):
    """The server has not got as far as the archive: a standby that lags, or an older copy."""

    code = "wal-server-behind"
    hint = "Wait for the standby, or look whether the connection string leads to the primary."


def receive(services: Services, cluster: ClusterSettings, *, stop: threading.Event) -> None:
    """Returns when `stop` is set and the tail is stored, or given up after some seconds.

    Raises what does not pass by itself: Denied, WrongSystem, WalConflict, SlotMissing and the
    like. While another receiver holds the cluster's lease, this one waits to take its place.
    """
    with ExitStack() as at_the_end:
        reporter = at_the_end.enter_context(open_reporter(services.settings))
        receiver = _Receiver(services, cluster, reporter, stop)
        at_the_end.callback(receiver.close)
        _repeat(receiver.session, services, stop)
    log_event("wal-receive-stopped", cluster=cluster.name)


def _repeat(session: Callable[[], None], services: Services, stop: threading.Event) -> None:
    """Session after session, as long as what ends them may pass."""
    pauses = _pauses(services.random)
    while not stop.is_set():
        services.alive()
        began = services.clocks.monotonic()
        try:
            session()
        except (Unavailable, LeaseHeld, LeaseLost, WalRemoved) as error:
            if services.clocks.monotonic() - began > _LONGEST_PAUSE_S:
                pauses = _pauses(services.random)
            pause = next(pauses)
            _log_interruption(error, pause)
            stop.wait(pause)


def _log_interruption(error: PgkeepError, pause: float) -> None:
    log_event(
        "wal-receive-interrupted",
        level=logging.WARNING,
        code=error.code,
        fact=error.fact,
        pause_s=round(pause, 1),
    )


def _pauses(random: Callable[[int], bytes]) -> Iterator[float]:
    """Each in the upper half of its step: many receivers shall not march in time."""
    ceiling = _FIRST_PAUSE_S
    while True:
        yield ceiling * (1 + int.from_bytes(random(2)) / (1 << 16)) / 2
        ceiling = min(2 * ceiling, _LONGEST_PAUSE_S)


class _Receiver:
    """What outlives a session: the archive's data key, the rhythm of reports, and what is lost."""

    def __init__(
        self,
        services: Services,
        cluster: ClusterSettings,
        reporter: WalReporter,
        stop: threading.Event,
    ) -> None:
        self._services = services
        self._cluster = cluster
        self._name = cluster_name(cluster.name)
        self._reporter = reporter
        self._stop = stop
        self._doorbell = Doorbell()
        self._progress = ProgressReports(services, cluster, reporter)
        self._measure = WalMeasure(services, cluster.name)
        self._archive: WalArchive | None = None
        self._lost: Position | None = None
        self._ours = False  # until we held the lease: another receiver tells the cluster's lag

    def close(self) -> None:
        self._progress.close()
        self._doorbell.close()
        if self._archive is not None:
            self._archive.close()

    def session(self) -> None:
        """From the lease to whatever ends it; returns when told to stop."""
        lock = layout.lock(self._name, _LOCK).path
        ttl = self._services.settings.worker.lease_seconds
        if self._ours:
            self._measure.tell()  # nobody else does between two sessions
        with ExitStack() as ends:
            holder = self._services.host
            lease = ends.enter_context(hold(self._services.leases, lock, holder, ttl_s=ttl))
            self._ours = True
            connection = connect(
                conninfo_of(self._cluster),
                replication=True,
                application_name=self._cluster.wal.application_name,
            )
            ends.callback(connection.finish)
            self._follow(connection, lease, ends)

    def _follow(self, connection: ReplicationConnection, lease: Renewal, ends: ExitStack) -> None:
        """The server's timeline, and each that follows it."""
        system = identify_system(connection)
        identity = register(self._services, self._name, str(system.system_identifier))
        archive = self._archive_of(identity, connection)
        history = store_histories(connection, archive, system.timeline)
        line = Line(history, wal_segment_size(connection))
        slot = ready_slot(connection, self._cluster.wal)
        session = self._open(archive, line.segment_size, system.system_identifier, lease)
        ends.callback(session.uploads.close)
        position = self._position(ServerView(line, system.flush_lsn, slot.restart_lsn))
        if position.timeline == system.timeline and position.lsn > system.flush_lsn:
            raise ServerBehind(f"the archive reaches {position.lsn}, the server {system.flush_lsn}")
        while (after := self._receive(session, connection, position)) is not None:
            store_histories(connection, archive, after.timeline)
            position = after

    def _archive_of(
        self, identity: ClusterDocument, connection: ReplicationConnection
    ) -> WalArchive:
        if self._archive is None:
            warn_of_unlimited(connection, self._cluster.wal)
            self._archive = WalArchive(self._services, identity, self._reporter, "receive")
        return self._archive

    def _open(
        self, archive: WalArchive, segment_size: int, system_identifier: int, lease: Renewal
    ) -> Session:
        def store(portion: Portion) -> datetime | None:
            check(portion, system_identifier, segment_size)
            contents = portion.contents()
            archive.put(portion.item, portion.content, contents)
            return contents.last_commit

        parallel = puts_at_once(self._services.settings.wal.parallel, segment_size)
        return Session(
            settings=self._cluster.wal,
            segment_size=segment_size,
            clocks=self._services.clocks,
            uploads=Uploads(store, parallel, self._doorbell.ring),
            progress=self._progress,
            measure=self._measure,
            doorbell=self._doorbell,
            lease=lease,
            stop=self._stop,
        )

    def _receive(
        self, session: Session, connection: ReplicationConnection, position: Position
    ) -> Position | None:
        """One timeline; gives where the next one begins, or None when told to stop."""
        log_event(
            "wal-receive-streams",
            cluster=self._name,
            timeline=position.timeline,
            lsn=str(position.lsn),
        )
        clocks = self._services.clocks
        stream = WalStream(connection, self._doorbell, Timing(clocks.now, clocks.monotonic))
        reception = Reception(session, stream, position)
        try:
            end = reception.run()
        except WalRemoved:
            self._lost = reception.position
            raise
        if end is None or self._stop.is_set():
            return None
        start = end.next_start - end.next_start % session.segment_size
        return Position(end.next_timeline, Lsn(start))

    def _position(self, server: ServerView) -> Position:
        """Where to go on; behind a gap, if the server no longer has what comes next (W03)."""
        position = find_position(self._services.store, self._name, server, self._lost)
        if position != self._lost:
            return position
        oldest = self._oldest_at_server(position, server.line)
        after = position_after(position, server, oldest)
        if after is None:
            raise WalRemoved(f"the server has nothing behind {position.lsn} yet")
        self._reporter.send(
            WalGapSeen(
                cluster=self._name,
                at=self._services.clocks.now(),
                writer="receive",
                host=self._services.host[:HOST_LENGTH],
                timeline=position.timeline,
                from_lsn=position.lsn,
                to_lsn=after.lsn,
            )
        )
        return after

    def _oldest_at_server(self, lost: Position, line: Line) -> Lsn | None:
        """By SQL, where the role may."""
        name = segment_name(lost.timeline, lost.lsn, line.segment_size)
        database = self._cluster.database
        try:
            return oldest_segment(connect_to(self._cluster), database, name, line.segment_size)
        except PgkeepError:
            return None
