"""How far the agent's share of the archive reaches without a gap, and its reports.

Segments become durable in any order; what is reported is the end of those that touch (W19).
PostgreSQL asks for the oldest first, so whatever lies before the one it asks for is archived.
"""

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileKind, WalFileName, segment_start
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.jobs.wal_events import WalProgress
from shared.settings import ClusterSettings
from worker.commands.cluster_login import connect_to
from worker.commands.services import Services
from worker.commands.wal_push import Pushed
from worker.postgres.archiver_facts import ArchiverFacts, archiver_facts

_HOST_LENGTH: Final = 200  # of WalProgress.host


@dataclass(frozen=True, slots=True)
class Reached:
    """Everything of `timeline` up to `end` is archived."""

    timeline: int
    end: Lsn
    last_commit: datetime | None


class ArchivedThrough:
    """Puts together what was pushed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._reached: Reached | None = None
        self._beyond: dict[tuple[int, Lsn], Pushed] = {}
        self._segment_size = 0
        self._lock = threading.Lock()

    @property
    def reached(self) -> Reached | None:
        with self._lock:
            return self._reached

    @property
    def segment_size(self) -> int:
        """0 before the first segment."""
        with self._lock:
            return self._segment_size

    def add(self, pushed: Pushed) -> None:
        """It is durable, whether PostgreSQL asked for it or will."""
        with self._lock:
            self._segment_size = pushed.end - pushed.start
            self._beyond[pushed.timeline, pushed.start] = pushed
            self._join()

    def confirm(self, name: WalFileName) -> None:
        """It is durable, and PostgreSQL asked for it."""
        with self._lock:
            if name.kind is not WalFileKind.SEGMENT or not self._segment_size:
                return
            start = segment_start(name, self._segment_size)
            if self._reached is None or self._place(self._reached) < (name.timeline, start):
                commit = self._reached.last_commit if self._reached else None
                self._reached = Reached(name.timeline, start, commit)
            self._join()

    def _join(self) -> None:
        while self._reached and (following := self._beyond.get(self._place(self._reached))):
            commit = following.last_commit or self._reached.last_commit
            self._reached = Reached(following.timeline, following.end, commit)
        if self._reached:
            place = self._place(self._reached)
            self._beyond = {key: kept for key, kept in self._beyond.items() if key > place}

    @staticmethod
    def _place(reached: Reached) -> tuple[int, Lsn]:
        return reached.timeline, reached.end


class AgentReports:
    """What the agent tells the function app, from what it did and what the server says."""

    def __init__(
        self, services: Services, cluster: ClusterSettings, archived: ArchivedThrough
    ) -> None:
        self._services = services
        self._cluster = cluster
        self._archived = archived
        self._trouble = ""

    def progress(self, waiting_files: int | None) -> WalProgress | None:
        """Takes as long as the server does. None as long as nobody knows the timeline."""
        at = self._services.clocks.now()
        reached, server = self._archived.reached, self._ask()
        if server is None and reached is None:
            return None
        timeline = server.timeline if server else reached.timeline if reached else 0
        waiting = waiting_files
        if waiting is None and server:
            waiting = server.waiting_files
        return WalProgress(
            cluster=self._cluster.name,
            at=at,
            writer="agent",
            host=self._services.host[:_HOST_LENGTH],
            timeline=timeline,
            server_lsn=server.position if server else None,
            archived_lsn=reached.end if reached else None,
            archived_commit=reached.last_commit if reached else None,
            unarchived_bytes=self._unarchived(server, reached, waiting),
            waiting_files=waiting,
        )

    def _unarchived(
        self, server: ArchiverFacts | None, reached: Reached | None, waiting: int | None
    ) -> int | None:
        if server and reached and server.timeline == reached.timeline:
            return max(0, server.position - reached.end)
        size = self._archived.segment_size
        return waiting * size if waiting is not None and size else None

    def _ask(self) -> ArchiverFacts | None:
        try:
            facts = archiver_facts(connect_to(self._cluster), self._cluster.database)
        except PgkeepError as error:
            if self._trouble != error.code:
                log_event("wal-server-unknown", code=error.code, fact=error.fact)
            self._trouble = error.code
            return None
        self._trouble = ""
        return facts
